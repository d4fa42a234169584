//! The page for people in a real browser: Debian's chromium, without a window and without a network.

use crate::cluster::{Cluster, served};
use crate::page::{hostile, rows, shop};
use crate::rig::{Rig, serve};
use ipvsd::kernel::fake::FakeKernel;
use std::env;
use std::net::SocketAddr;
use std::process::{Command, Output};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

/// Longer than it takes on a slow machine that does much else.
const SECONDS: &str = "90";

#[tokio::test]
async fn a_browser_shows_what_the_node_does_and_finds_services() {
    let Some(()) = browser() else { return };
    let rig = Rig::about(shop().ask());
    rig.health.node(true);
    let address = rig.metrics_server(false).await;
    let page = load(address, "/").await;
    assert!(page.contains("<title>ipvsd on worker-1: healthy</title>"), "{page}");
    assert_eq!(services(&page), ["default/dns", "default/dns", "default/web"]);
    let found = load(address, "/?q=web").await;
    assert_eq!(services(&found), ["default/web"]);
    assert!(found.contains("id=\"q\" name=\"q\" maxlength=\"100\" value=\"web\""), "{found}");
}

#[tokio::test]
async fn a_browser_takes_no_name_for_markup() {
    let Some(()) = browser() else { return };
    let address = Rig::about(hostile().ask()).metrics_server(false).await;
    let page = load(address, "/?q=%3Cscript%3Econsole.error(%27owned%27)%3C/script%3E").await;
    for markup in ["<script", "<img", "<h1>owned"] {
        assert!(!page.contains(markup), "{markup} in {page}");
    }
    assert_eq!(services(&page).len(), 1);
}

#[tokio::test]
async fn a_browser_shows_as_much_of_ten_thousand_services_as_of_few() {
    let Some(()) = browser() else { return };
    let changes = (0..10_000).flat_map(|number| served(&format!("service-{number}"), number, &[1, 2]));
    let address = Rig::about(Cluster::new(FakeKernel::default()).programmed(changes).ask()).metrics_server(false).await;
    assert_eq!(services(&load(address, "/").await).len(), 200);
}

/// What the other tests rely on: a browser that is told something against a page says so.
#[tokio::test]
async fn a_browser_that_objects_is_heard() {
    let Some(()) = browser() else { return };
    let address = serve(page_against_its_own_policy()).await;
    let (_directory, output) = run(address, "/", &["--dump-dom"]).await;
    let said = complaints(&output);
    assert!(said.iter().any(|line| line.contains("Content Security Policy")), "{said:?}");
}

fn page_against_its_own_policy() -> ipvsd::server::Handler {
    use bytes::Bytes;
    use http::Response;
    std::sync::Arc::new(|_| {
        let page = Response::builder().header("Content-Type", "text/html");
        let page = page.header("Content-Security-Policy", "default-src 'none'");
        let body = Bytes::from_static(b"<!DOCTYPE html><style>p { color: red }</style><p>Hello</p>");
        Box::pin(std::future::ready(page.body(body.into()).unwrap()))
    })
}

/// `IPVSD_UPDATE=1` takes the picture of the documents.
#[tokio::test]
async fn a_picture_can_be_taken() {
    let Some(()) = browser() else { return };
    let rig = Rig::about(shop().ask());
    rig.health.node(true);
    let address = rig.metrics_server(false).await;
    let (directory, output) = run(address, "/", &["--screenshot", "--window-size=1000,900"]).await;
    assert!(complaints(&output).is_empty(), "{output:?}");
    let picture = directory.path().join("screenshot.png");
    let bytes = std::fs::read(&picture).unwrap();
    assert!((5_000..100_000).contains(&bytes.len()), "{} bytes", bytes.len());
    if env::var_os("IPVSD_UPDATE").is_some() {
        std::fs::copy(picture, concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pictures/page.png")).unwrap();
    }
}

fn browser() -> Option<()> {
    if Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Some(());
    }
    assert!(env::var_os("IPVSD_REQUIRE_KERNEL").is_none(), "chromium is not installed; tests/lab/setup does it");
    eprintln!("NOT CHECKED: chromium is not installed, run tests/lab/setup");
    None
}

/// The document as the browser has it, to which it has no objections.
async fn load(address: SocketAddr, path: &str) -> String {
    let (_directory, output) = run(address, path, &["--dump-dom"]).await;
    assert!(complaints(&output).is_empty(), "{path}: {:?}", complaints(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Has the browser do something with a page, with a directory of its own.
async fn run(address: SocketAddr, path: &str, what: &[&'static str]) -> (TempDir, Output) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", SECONDS, "chromium", "--headless", "--no-sandbox", "--disable-dev-shm-usage"]);
    // It asks nobody but the server.
    command.args(["--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]);
    command.args(["--no-first-run", "--disable-gpu", "--enable-logging=stderr"]).args(what);
    command.arg(format!("--user-data-dir={}", directory.path().join("profile").display()));
    command.arg(format!("http://{address}{path}")).current_dir(directory.path()).env("HOME", directory.path());
    let output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    (directory, output)
}

/// What the browser says against the page: errors of scripts, and what the policy forbids.
fn complaints(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect()
}

/// The Services of the lines, from the top.
fn services(page: &str) -> Vec<String> {
    let table = page.split("id=\"services\"").nth(1).unwrap();
    rows(table).into_iter().skip(1).map(|cells| cells[0].clone()).collect()
}
