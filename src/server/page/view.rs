//! How the page looks.

use super::html::Html;
use crate::health::{Report, timestamp};
use crate::inspect::Overview;
use crate::inspect::form::{Protocol, Server};
use crate::inspect::overview::Line;
use crate::inspect::service::{Kind, Policy};
use crate::metrics::Quantiles;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::time::Duration;

/// What is known without the reconciler.
pub struct Known {
    /// What balances, in a word.
    pub mode: &'static str,
    /// Since the start.
    pub up: Duration,
    pub health: Report,
    /// How long the oldest change has been waiting.
    pub queue_age: Duration,
    /// Of passes, and of news.
    pub latencies: [Option<Quantiles>; 2],
}

/// All that the page shows.
pub struct View<'a> {
    pub node: &'a str,
    pub known: Known,
    /// Why this mode, half a sentence.
    pub reason: &'a str,
    /// None while the reconciler is busy.
    pub overview: Option<&'a Overview>,
    /// What is looked for.
    pub text: &'a str,
}

/// How much something is to be looked at. The names are those of the style.
#[derive(Clone, Copy)]
enum Level {
    Good,
    Warning,
    Bad,
}

const TD: [&str; 2] = ["<td>", "</td>"];
const NUMBER: [&str; 2] = ["<td class=\"number\">", "</td>"];
const ROW: [&str; 2] = ["<tr><th scope=\"row\">", "</th>"];

const HEAD: &str = concat!(
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>",
    include_str!("style.css"),
    "</style>\n"
);

const FOOT: &str = "<footer>\n<p>For programs: <a href=\"metrics\">metrics</a>, <a href=\"healthz\">healthz</a>, \
    <a href=\"configz\">configz</a>. On the node, as root: <code>ipvsd check</code>, \
    <code>ipvsd explain NAMESPACE/SERVICE</code>, <code>ipvsd top</code>.</p>\n</footer>\n</main>\n</body>\n</html>\n";

impl View<'_> {
    /// The page.
    pub fn html(&self) -> String {
        let (mut html, states) = (Html::default(), self.states());
        let worst = states.first().map_or("", |(_, sentence)| sentence);
        html.markup(HEAD).markup("<title>").text(format_args!("ipvsd on {}: {worst}", self.node));
        html.markup("</title>\n</head>\n<body>\n<main>\n").element(["<h1>ipvsd on ", "</h1>\n"], self.node);
        html.markup("<ul class=\"state\">");
        for (level, sentence) in &states {
            html.element(level.item(), sentence);
        }
        html.markup("</ul>\n");
        self.facts(&mut html);
        self.families(&mut html);
        self.latencies(&mut html);
        if let Some(overview) = self.overview {
            troubles(overview, &mut html);
            self.services(overview, &mut html);
        }
        html.markup(FOOT);
        html.finish()
    }

    /// How all is, the worst first; at least one sentence.
    fn states(&self) -> Vec<(Level, String)> {
        let mut bad = Vec::new();
        let mut warnings = Vec::new();
        let lagging = self.known.health.families.iter().filter(|(_, family)| !family.is_healthy);
        bad.extend(lagging.map(|(family, _)| format!("unhealthy: changes of {} wait for too long", family.name())));
        if !self.known.health.node_eligible {
            warnings.push("load balancers are told to send nothing to this node".into());
        }
        match self.overview {
            None => warnings.push("the reconciler is in the middle of a pass: load the page again for the rest".into()),
            Some(overview) => {
                let status = &overview.status;
                if !status.informed {
                    warnings.push("what is wanted is not known yet, and nothing is changed".into());
                }
                if let Some(unread) = status.last_pass.as_ref().and_then(|pass| pass.unread.as_ref()) {
                    bad.push(format!("the kernel cannot be read: {unread}"));
                }
                match overview.failed.values().sum::<usize>() {
                    0 => {}
                    failed => bad.push(format!("operations that failed and are tried again: {failed}")),
                }
                match status.problems.len() {
                    0 => {}
                    problems => warnings.push(format!("problems with the input: {problems}")),
                }
            }
        }
        let all = bad.into_iter().map(|text| (Level::Bad, text));
        let mut all: Vec<_> = all.chain(warnings.into_iter().map(|text| (Level::Warning, text))).collect();
        if all.is_empty() {
            all.push((Level::Good, "healthy".into()));
        }
        all
    }

    fn facts(&self, html: &mut Html) {
        html.markup("<h2>Now</h2>\n<dl>\n");
        let mut fact = |name: &'static str, value: &dyn Display| {
            html.element(["<div><dt>", "</dt>"], name).element(["<dd>", "</dd></div>\n"], value);
        };
        fact("Mode", &format_args!("{}, {}", self.known.mode, self.reason));
        fact("Version", &env!("CARGO_PKG_VERSION"));
        fact("Up for", &long(self.known.up));
        fact("Node may get traffic", &if self.known.health.node_eligible { "yes" } else { "no" });
        if let Some(Overview { status, .. }) = self.overview {
            fact("Services", &status.services);
            fact("EndpointSlices", &status.endpoint_slices);
            fact("Virtual servers", &status.virtual_servers);
            fact("Destinations", &status.destinations);
            fact("Draining", &status.draining);
            if status.inherited > 0 {
                fact("Kept, as some input cannot be read", &status.inherited);
            }
        }
        html.markup("</dl>\n");
    }

    fn families(&self, html: &mut Html) {
        html.markup("<h2>Health</h2>\n<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">Family</th>");
        html.markup("<th scope=\"col\">Healthy</th><th scope=\"col\">Last up to date</th></tr></thead>\n<tbody>\n");
        let now = self.known.health.now;
        for (family, report) in &self.known.health.families {
            let ago = now.monotonic.saturating_sub(report.last_updated.monotonic);
            let when = Duration::from_secs(report.last_updated.since_unix_epoch.as_secs());
            html.element(ROW, family.name()).element(TD, if report.is_healthy { "yes" } else { "no" });
            html.element(TD, format_args!("{}, {} ago", timestamp::rfc3339(when), long(ago))).markup("</tr>\n");
        }
        html.markup("</tbody>\n</table></div>\n<p>");
        match self.known.queue_age {
            Duration::ZERO => html.text("Nothing waits to be programmed."),
            age => html.text(format_args!("The oldest change has been waiting for {}.", long(age))),
        };
        if let Some(pass) = self.overview.and_then(|overview| overview.status.last_pass.as_ref()) {
            let ago = long(Duration::from_secs(pass.seconds_ago));
            html.text(format_args!(" The last pass ended {ago} ago and took {} ms.", pass.milliseconds));
        }
        html.markup("</p>\n");
    }

    fn latencies(&self, html: &mut Html) {
        html.markup("<h2>Sync latency</h2>\n<div class=\"wide\"><table>\n<thead><tr><th scope=\"col\">What</th>");
        html.markup(
            "<th scope=\"col\" class=\"number\">Number</th><th scope=\"col\" class=\"number\">Half within</th>",
        );
        html.markup("<th scope=\"col\" class=\"number\">90 % within</th>");
        html.markup("<th scope=\"col\" class=\"number\">99 % within</th></tr></thead>\n<tbody>\n");
        for (what, measured) in ["From news to the kernel", "Passes"].iter().zip(self.known.latencies.iter().rev()) {
            html.element(ROW, what).element(NUMBER, measured.map_or(0, |measured| measured.count));
            for of in [|all: Quantiles| all.half, |all: Quantiles| all.most, |all: Quantiles| all.nearly_all] {
                html.markup("<td class=\"number\">");
                measured.iter().for_each(|measured| _ = html.text(within(of(*measured))));
                html.markup("</td>");
            }
            html.markup("</tr>\n");
        }
        html.markup("</tbody>\n</table></div>\n");
    }

    fn services(&self, overview: &Overview, html: &mut Html) {
        html.markup(
            "<h2 id=\"services\">Services</h2>\n<form role=\"search\">\n<label for=\"q\">Name, address or port",
        );
        html.markup("</label>\n<input type=\"search\" id=\"q\" name=\"q\" maxlength=\"100\" value=\"").text(self.text);
        html.markup("\">\n<button>Search</button>\n</form>\n<p>").text(Counted(overview)).markup("</p>\n");
        html.markup(
            "<div class=\"wide\" role=\"region\" aria-labelledby=\"services\" tabindex=\"0\"><table>\n<thead><tr>",
        );
        for heading in ["Service", "Port", "Way in", "Address", "Scheduler", "Affinity", "Policy"] {
            html.element(["<th scope=\"col\">", "</th>"], heading);
        }
        for heading in ["Serving", "Draining"] {
            html.element(["<th scope=\"col\" class=\"number\">", "</th>"], heading);
        }
        html.markup("<th scope=\"col\">State</th></tr></thead>\n<tbody>\n");
        overview.lines.iter().for_each(|line| row(line, html));
        html.markup("</tbody>\n</table></div>\n");
    }
}

impl Level {
    fn item(self) -> [&'static str; 2] {
        let start = match self {
            Self::Good => "<li class=\"good\">",
            Self::Warning => "<li class=\"warning\">",
            Self::Bad => "<li class=\"bad\">",
        };
        [start, "</li>"]
    }
}

/// How many lines there are, and how many of them are shown.
struct Counted<'a>(&'a Overview);

impl Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overview { lines, matching, .. } = self.0;
        match matching.checked_sub(lines.len()) {
            Some(1..) => write!(f, "{matching} ways in; {} more than these: search for them.", matching - lines.len()),
            _ => write!(f, "{matching} ways in."),
        }
    }
}

/// What failed, and which objects are not as they should be.
fn troubles(overview: &Overview, html: &mut Html) {
    let Overview { failed, concerns, status, .. } = overview;
    if !failed.is_empty() {
        html.markup(
            "<h2>Failed operations of the last pass</h2>\n<table>\n<thead><tr><th scope=\"col\">Operation</th>",
        );
        html.markup("<th scope=\"col\" class=\"number\">Number</th></tr></thead>\n<tbody>\n");
        for (kind, count) in failed {
            html.element(ROW, kind).element(NUMBER, count).markup("</tr>\n");
        }
        html.markup("</tbody>\n</table>\n");
    }
    if !concerns.is_empty() {
        html.markup("<h2>Problems with the input</h2>\n<div class=\"wide\"><table>\n<thead><tr>");
        html.markup("<th scope=\"col\">Object</th><th scope=\"col\">Field</th></tr></thead>\n<tbody>\n");
        for concern in concerns {
            html.element(ROW, &concern.object).element(TD, &concern.field).markup("</tr>\n");
        }
        html.markup("</tbody>\n</table></div>\n");
        match status.problems.len().saturating_sub(concerns.len()) {
            0 => {}
            more => _ = html.element(["<p>", "</p>\n"], format_args!("{more} more: `ipvsd check` has all of them.")),
        }
    }
}

fn row(line: &Line, html: &mut Html) {
    html.element(ROW, &line.service).element(TD, &line.port).element(TD, kind(line.kind)).element(TD, At(line.server));
    html.element(TD, line.scheduler.as_deref().unwrap_or_default()).markup("<td>");
    line.affinity_seconds.iter().for_each(|seconds| _ = html.text(format_args!("{seconds} s")));
    html.element(["</td><td>", "</td>"], if line.policy == Policy::Local { "Local" } else { "Cluster" });
    html.element(NUMBER, line.serving).element(NUMBER, line.draining);
    let (level, state) = state(line);
    let [start, end] = match level {
        Level::Good => ["<td class=\"good\">", "</td></tr>\n"],
        Level::Warning => ["<td class=\"warning\">", "</td></tr>\n"],
        Level::Bad => ["<td class=\"bad\">", "</td></tr>\n"],
    };
    html.element([start, end], state);
}

/// In a word what becomes of connections, the worst that there is to say.
fn state(line: &Line) -> (Level, String) {
    match line {
        Line { foreign: true, .. } => (Level::Bad, "in the way: another's virtual server".into()),
        Line { holder: Some(holder), .. } => (Level::Bad, format!("{holder} has it")),
        Line { in_trouble: true, .. } => (Level::Bad, "error".into()),
        Line { serving: 0, .. } => (Level::Warning, "no endpoints".into()),
        Line { draining: 1.., .. } => (Level::Warning, "draining".into()),
        _ => (Level::Good, "serves".into()),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::ClusterIp => "cluster IP",
        Kind::ExternalIp => "external IP",
        Kind::LoadBalancerIp => "load-balancer IP",
        Kind::NodePort => "node port",
    }
}

/// `ADDRESS:PORT/PROTOCOL`.
struct At(Server);

impl Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Server::Address { protocol, address, port } => {
                let protocol = match protocol {
                    Protocol::Tcp => "TCP",
                    Protocol::Udp => "UDP",
                    Protocol::Sctp => "SCTP",
                };
                write!(f, "{}/{protocol}", SocketAddr::new(address, port))
            }
            Server::Mark { mark, .. } => write!(f, "mark {mark:#x}"),
        }
    }
}

/// Seconds of a bucket's bound.
fn within(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "longer".into(), |bound| format!("{bound:?}"))
}

/// Days, hours, minutes and seconds, the two largest that are there.
fn long(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds @ 3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        seconds => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}
