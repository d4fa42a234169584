//! A cluster whose Services are programmed into a kernel in memory, and its reconciler, which is asked.

use crate::objects::{NODE, service, slice};
use ipvsd::desired::Settings;
use ipvsd::inspect::{Answer, LastPass, Question, Subject, answer};
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::reconcile::{Options, Reconciler};
use ipvsd::server::{Ask, Unanswered};
use ipvsd::source::convert::{self, Context, Rules};
use ipvsd::state::{Change, EndpointSlice, ObjectName, ObjectRef, Origin, Problem, Service};
use serde_json::Value;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the reconciler's thread has.
pub struct Cluster {
    reconciler: Reconciler<FakeKernel>,
    problems: Vec<Problem>,
    now: Duration,
    last_pass: Option<LastPass>,
}

impl Cluster {
    /// Nothing is known yet.
    pub fn new(kernel: FakeKernel) -> Self {
        let options = Options { drain_timeout: Duration::from_secs(60), ..Options::default() };
        let reconciler = Reconciler::new(kernel, Settings::default(), options);
        Self { reconciler, problems: Vec::new(), now: Duration::ZERO, last_pass: None }
    }

    /// Takes this in and programs it, a second later.
    pub fn programmed(mut self, changes: impl IntoIterator<Item = Change>) -> Self {
        self.now += Duration::from_secs(1);
        self.reconciler.take(changes);
        let report = self.reconciler.pass(self.now);
        self.last_pass = Some(LastPass::of(&report, self.now, Duration::from_millis(7), self.last_pass.take()));
        self
    }

    /// Every destination has a connection.
    pub fn connect(&mut self) {
        let kernel = self.reconciler.kernel_mut();
        for (server, found) in &kernel.model.virtual_servers {
            kernel.connections.extend(found.destinations.keys().map(|destination| ((*server, *destination), 1)));
        }
    }

    /// Something is wrong with the field of an object.
    pub fn with_problem(mut self, object: ObjectRef, field: &str) -> Self {
        let (field, message) = (field.into(), "a secret value is none of these".into());
        self.problems.push(Problem { origin: Origin::Api, object: Some(object), field, message });
        self
    }

    pub fn answer(&self, question: &Question) -> Option<Answer> {
        let subject = Subject {
            view: self.reconciler.view(),
            problems: &self.problems,
            now: self.now + Duration::from_secs(3),
            is_informed: self.last_pass.is_some(),
            last_pass: self.last_pass.as_ref(),
            fallback: None,
        };
        answer(question, &subject)
    }

    /// As the reconciler's thread is asked.
    pub fn ask(self) -> Ask {
        let shared = Mutex::new(self);
        Arc::new(move |question| {
            let answer = shared.lock().unwrap().answer(&question);
            Box::pin(ready(answer.ok_or(Unanswered::Unknown)))
        })
    }
}

/// The Service of an object, with which a test may do what the API server would not let anybody do.
pub fn read_service(object: Value) -> Service {
    let raw = serde_json::from_value(object).unwrap();
    convert::service(&raw, &Origin::Api, &context()).unwrap().unwrap().object
}

fn read_slice(object: Value) -> EndpointSlice {
    let raw = serde_json::from_value(object).unwrap();
    convert::endpoint_slice(&raw, &Origin::Api, &context()).unwrap().unwrap().object
}

fn context() -> Context {
    Context::new(Rules::Api, NODE)
}

/// The Service `default/NAME` with a cluster IP that ends in `last` + 1, and its endpoints.
pub fn served(name: &str, last: usize, endpoints: &[u8]) -> [Change; 2] {
    let service = read_service(service(name, last));
    [Change::Service(service.into()), endpoints_of(name, endpoints)]
}

/// The endpoints of a Service.
pub fn endpoints_of(name: &str, endpoints: &[u8]) -> Change {
    Change::EndpointSlice(read_slice(slice(name, endpoints)).into())
}

/// A reference to `default/NAME`.
pub fn of_service(name: &str) -> ObjectRef {
    ObjectRef::Service(ObjectName::new("default", name))
}
