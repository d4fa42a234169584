//! The alerting rules and the dashboard ask for metrics and labels that there are, in the language that Prometheus reads.

use crate::support::deployment;
use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// Prometheus's format of rules, as far as it is used.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Alert>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    alert: String,
    expr: String,
    r#for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[test]
fn each_alert_asks_for_what_there_is_and_says_what_is_wrong() {
    let rules: Rules = serde_saphyr::from_str(&deployment::read("deploy/monitoring/alerts.yaml")).unwrap();
    let mut names = BTreeSet::new();
    for group in rules.groups {
        assert_eq!(group.name, "ipvsd");
        for alert in group.rules {
            assert!(names.insert(alert.alert.clone()), "{} stands twice", alert.alert);
            check(&alert.alert, &alert.expr);
            assert!(matches!(alert.labels["severity"].as_str(), "warning" | "critical"), "{}", alert.alert);
            for annotation in ["summary", "description"] {
                assert!(!alert.annotations[annotation].is_empty(), "{}", alert.alert);
            }
            let is_duration = |text: &String| text.trim_end_matches(['m', 'h']).parse::<u32>().is_ok();
            assert!(alert.r#for.as_ref().is_none_or(is_duration), "{}", alert.alert);
        }
    }
    assert!(names.len() > 5);
}

#[test]
fn each_panel_asks_for_what_there_is_and_has_its_own_place() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&deployment::read("deploy/monitoring/dashboard.json")).unwrap();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let [x, y, w] = ["x", "y", "w"].map(|field| panel["gridPos"][field].as_u64().unwrap());
        assert!(x + w <= 24 && places.insert((x, y)), "{title}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            // What Grafana puts in.
            let expr = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            check(title, &expr);
        }
    }
}

#[test]
fn what_is_not_there_is_noticed() {
    for expr in ["ipvsd_nothing_total", "sum(ipvsd_queue_age_seconds", "ipvsd_operations_total{verb=\"x\"}"] {
        assert!(std::panic::catch_unwind(|| check("", expr)).is_err(), "{expr}");
    }
}

fn check(of: &str, expr: &str) {
    let parsed = parser::parse(expr).unwrap_or_else(|error| panic!("{of}: {expr}: {error}"));
    let mut selectors = Selectors::default();
    walk_expr(&mut selectors, &parsed).unwrap_or_else(|never| match never {});
    assert!(!selectors.0.is_empty(), "{of}: {expr} looks at nothing");
    for (name, labels) in selectors.0 {
        let known = known(&name).unwrap_or_else(|| panic!("{of}: there is no metric {name}"));
        let missing: Vec<_> = labels.difference(&known).collect();
        assert!(missing.is_empty(), "{of}: {name} has no {missing:?}");
    }
}

/// The metrics that an expression selects, with the labels that it selects them by.
#[derive(Default)]
struct Selectors(Vec<(String, BTreeSet<String>)>);

impl ExprVisitor for Selectors {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        let selector: Option<&VectorSelector> = match expr {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(matrix) => Some(&matrix.vs),
            _ => None,
        };
        if let Some(selector) = selector {
            let labels = selector.matchers.matchers.iter().map(|matcher| matcher.name.clone());
            self.0.push((selector.name.clone().unwrap(), labels.collect()));
        }
        Ok(true)
    }
}

/// The labels of a metric: what Prometheus adds, and what docs/metrics.md says, which another test holds to the program.
fn known(name: &str) -> Option<BTreeSet<String>> {
    let of_prometheus = ["instance", "job"].map(str::to_owned);
    if name == "up" {
        return Some(of_prometheus.into());
    }
    let document = deployment::read("docs/metrics.md");
    let family = name.strip_suffix("_bucket").unwrap_or(name);
    let row = document.lines().find(|line| line.starts_with(&format!("| `{family}` | ")))?;
    let labels = row.split('|').nth(3)?.split('`').skip(1).step_by(2).map(str::to_owned);
    Some(labels.chain(of_prometheus).chain((family != name).then(|| "le".to_owned())).collect())
}
