//! Looks at single things in the kernel, for those who explain them.

use super::{Linux, ROUTES, data, entry};
use crate::kernel::ipvs::{DestinationEntry, VirtualServerEntry};
use crate::kernel::{Kernel, ObserveError, Scope, route};
use crate::model::{Model, RouteSpec, VirtualServerKey};
use nix::net::if_::if_indextoname;
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Linux {
    /// Those of these virtual servers that exist, whoever made them, each with its destinations.
    ///
    /// # Errors
    /// Any failure to read all of them.
    pub fn entries(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<Vec<(VirtualServerEntry, Vec<DestinationEntry>)>, ObserveError> {
        if let Some(ipvs) = &mut self.ipvs {
            return ipvs.entries(keys);
        }
        let seen = self.observe(Scope::All)?.model.virtual_servers;
        Ok(entry::table(keys.iter().filter_map(|key| seen.get_key_value(key))).virtual_servers)
    }

    /// Our routes.
    ///
    /// # Errors
    /// Any failure to read all of them.
    pub fn routes(&mut self) -> Result<BTreeMap<IpAddr, RouteSpec>, ObserveError> {
        let mut model = Model::default();
        self.observe_routes(&mut model)?;
        Ok(model.routes)
    }

    /// The device by which packets to an address leave, and by which those from it come if they take the same way; none
    /// if there is no way.
    ///
    /// # Errors
    /// The answer cannot be understood.
    pub fn device_towards(&mut self, address: IpAddr) -> Result<Option<String>, ObserveError> {
        let mut found = Ok(None);
        self.route.exchange(
            [()],
            |batch, ()| route::towards(batch, address),
            |(), answer| {
                found = match data(ROUTES, answer, route::decode_device) {
                    // Unreachable, prohibited or without a route: there is no way.
                    Err(ObserveError::Refused { .. }) => Ok(None),
                    device => device.map(Some),
                };
            },
        );
        let name = found?.and_then(|index| if_indextoname(index).ok());
        Ok(name.and_then(|name| name.into_string().ok()))
    }
}
