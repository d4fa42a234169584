//! Each way in which people and programs change files is noticed, soon and once.

use super::super::Manifests;
use super::*;
use crate::state::Change;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// A directory under test, and the watch on `manifests` in it.
struct Scene {
    root: TempDir,
    watch: Watch,
}

impl Scene {
    /// `prepare` sets the directory up before it is watched.
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("manifests")).unwrap();
        prepare(root.path());
        let watch = Watch::new(&root.path().join("manifests"));
        Self { root, watch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    async fn is_noticed(&mut self) {
        let within = Duration::from_secs(5);
        tokio::time::timeout(within, self.watch.changed()).await.expect("the change was not noticed");
    }

    async fn is_quiet(&mut self) {
        let within = Duration::from_millis(60);
        assert!(tokio::time::timeout(within, self.watch.changed()).await.is_err(), "noticed without a change");
    }
}

/// A directory as kubelet mounts a ConfigMap.
fn config_map(root: &Path) {
    let mount = root.join("manifests");
    fs::create_dir(mount.join("..v1")).unwrap();
    fs::write(mount.join("..v1/web.yaml"), "one").unwrap();
    symlink("..v1", mount.join("..data")).unwrap();
    symlink("..data/web.yaml", mount.join("web.yaml")).unwrap();
}

#[tokio::test]
async fn files_that_come_change_and_go_are_noticed() {
    let mut scene = Scene::new(|_| {});
    let (file, other) = (scene.path("manifests/web.yaml"), scene.path("manifests/web.json"));
    fs::write(&file, "one").unwrap();
    scene.is_noticed().await;
    File::options().append(true).open(&file).unwrap().write_all(b"two").unwrap();
    scene.is_noticed().await;
    fs::rename(&file, &other).unwrap();
    scene.is_noticed().await;
    fs::remove_file(&other).unwrap();
    scene.is_noticed().await;
    scene.is_quiet().await;
}

#[tokio::test]
async fn what_editors_write_and_rename_is_noticed_once_it_is_whole() {
    let mut scene = Scene::new(|root| fs::write(root.join("manifests/web.yaml"), "one").unwrap());
    let [file, backup, new] = ["web.yaml", "web.yaml~", ".web.yaml.new"].map(|n| scene.path("manifests").join(n));
    fs::write(scene.path("manifests/.web.yaml.swp"), "").unwrap();
    fs::write(&new, "two").unwrap();
    scene.is_quiet().await;
    fs::rename(&file, &backup).unwrap();
    fs::rename(&new, &file).unwrap();
    scene.is_noticed().await;
    fs::remove_file(&backup).unwrap();
    scene.is_quiet().await;
}

#[tokio::test]
async fn the_swap_of_a_mounted_config_map_is_noticed() {
    let mut scene = Scene::new(config_map);
    let mount = scene.path("manifests");
    for version in ["..v2", "..v3"] {
        fs::create_dir(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("web.yaml"), version).unwrap();
        symlink(version, mount.join("..data_tmp")).unwrap();
        scene.is_quiet().await;
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        scene.is_noticed().await;
    }
    fs::write(mount.join("..v3/web.yaml"), "in place").unwrap();
    scene.is_noticed().await;
    fs::write(mount.join("..v1/web.yaml"), "no longer linked").unwrap();
    scene.is_quiet().await;
}

#[tokio::test]
async fn a_file_elsewhere_that_a_link_leads_to_is_watched() {
    let mut scene = Scene::new(|root| {
        fs::create_dir(root.join("elsewhere")).unwrap();
        fs::write(root.join("elsewhere/text"), "one").unwrap();
    });
    symlink("../elsewhere/text", scene.path("manifests/web.yaml")).unwrap();
    scene.is_noticed().await;
    fs::write(scene.path("elsewhere/text"), "two").unwrap();
    scene.is_noticed().await;
    fs::write(scene.path("elsewhere/other.yaml"), "not ours").unwrap();
    scene.is_quiet().await;
    fs::remove_file(scene.path("elsewhere/text")).unwrap();
    scene.is_noticed().await;
    fs::write(scene.path("elsewhere/text"), "three").unwrap();
    scene.is_noticed().await;
}

#[tokio::test]
async fn a_directory_that_is_removed_and_made_again_is_watched_on() {
    let mut scene = Scene::new(|_| {});
    fs::remove_dir(scene.path("manifests")).unwrap();
    scene.is_noticed().await;
    fs::create_dir(scene.path("manifests")).unwrap();
    scene.is_noticed().await;
    fs::write(scene.path("manifests/web.yaml"), "one").unwrap();
    scene.is_noticed().await;
    fs::rename(scene.path("manifests"), scene.path("old")).unwrap();
    scene.is_noticed().await;
    fs::write(scene.path("old/web.yaml"), "no longer here").unwrap();
    scene.is_quiet().await;
}

#[tokio::test]
async fn a_directory_that_is_a_link_is_watched_on_when_that_is_swapped() {
    let mut scene = Scene::new(|root| {
        fs::rename(root.join("manifests"), root.join("v1")).unwrap();
        symlink("v1", root.join("manifests")).unwrap();
        fs::create_dir(root.join("v2")).unwrap();
    });
    symlink("v2", scene.path("new")).unwrap();
    fs::rename(scene.path("new"), scene.path("manifests")).unwrap();
    scene.is_noticed().await;
    fs::write(scene.path("v1/web.yaml"), "no longer here").unwrap();
    scene.is_quiet().await;
    fs::write(scene.path("v2/web.yaml"), "here").unwrap();
    scene.is_noticed().await;
}

#[tokio::test]
async fn a_directory_that_comes_later_with_its_parents_is_noticed() {
    let root = TempDir::new().unwrap();
    let watch = Watch::new(&root.path().join("a/b/manifests"));
    let mut scene = Scene { root, watch };
    fs::create_dir_all(scene.path("a/b/manifests")).unwrap();
    scene.is_noticed().await;
    fs::write(scene.path("a/b/manifests/web.yaml"), "").unwrap();
    scene.is_noticed().await;
}

#[tokio::test]
async fn changes_of_permissions_and_those_while_nobody_waits_are_noticed_once() {
    use std::os::unix::fs::PermissionsExt;
    let mut scene = Scene::new(|root| fs::write(root.join("manifests/web.yaml"), "one").unwrap());
    fs::set_permissions(scene.path("manifests/web.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    scene.is_noticed().await;
    scene.is_quiet().await;
}

#[tokio::test]
async fn a_burst_is_one_change_and_a_stream_is_told_of_in_time() {
    let mut scene = Scene::new(|_| {});
    for number in 0..500 {
        fs::write(scene.path(&format!("manifests/{number}.yaml")), "").unwrap();
    }
    scene.is_noticed().await;
    scene.is_quiet().await;
    let file = scene.path("manifests/web.yaml");
    let writer = tokio::spawn(async move {
        loop {
            fs::write(&file, "").unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    scene.is_noticed().await;
    assert!(!writer.is_finished(), "it never paused");
    writer.abort();
}

/// Shown for a file of the directory, and for one elsewhere that a link leads to.
#[tokio::test]
async fn a_file_is_being_written_until_it_is_closed() {
    for (written, link) in [("manifests/web.yaml", None), ("elsewhere", Some("manifests/web.yaml"))] {
        let mut scene = Scene::new(|root| {
            fs::write(root.join(written), "one").unwrap();
            _ = link.map(|link| symlink(root.join(written), root.join(link)).unwrap());
        });
        let file = FileId::at(&scene.path("manifests/web.yaml")).unwrap();
        assert!(!scene.watch.is_being_written(file));
        let mut writer = File::create(scene.path(written)).unwrap();
        assert!(scene.watch.is_being_written(file), "it is empty now");
        writer.write_all(b"tw").unwrap();
        scene.is_quiet().await;
        assert!(scene.watch.is_being_written(file));
        drop(writer);
        assert!(scene.watch.is_being_written(file), "it was while it was read");
        scene.is_noticed().await;
        assert!(!scene.watch.is_being_written(file));
    }
}

#[tokio::test]
async fn a_file_that_nobody_goes_on_with_is_waited_for_no_longer() {
    let mut scene = Scene::new(|root| fs::write(root.join("manifests/web.yaml"), "one").unwrap());
    let file = FileId::at(&scene.path("manifests/web.yaml")).unwrap();
    let _writer = File::create(scene.path("manifests/web.yaml")).unwrap();
    assert!(scene.watch.is_being_written(file));
    scene.watch.writes.get_mut(&file).unwrap().last -= RESCAN;
    assert!(!scene.watch.is_being_written(file));
}

#[tokio::test]
async fn a_change_is_told_of_although_a_wait_for_it_was_dropped() {
    let mut scene = Scene::new(|_| {});
    fs::write(scene.path("manifests/web.yaml"), "").unwrap();
    tokio::time::sleep(QUIET / 4).await;
    // Polled once, which reads of the change; to tell of it takes a time without another.
    let is_told = tokio::select! { biased; () = scene.watch.changed() => true, () = future::ready(()) => false };
    assert!(!is_told);
    scene.is_noticed().await;
}

#[tokio::test]
async fn without_inotify_it_is_time_to_look_again_now_and_then() {
    let mut scene = Scene::new(|_| {});
    scene.watch.fail(&io::ErrorKind::Other.into());
    scene.is_quiet().await;
    scene.watch.rescan = Instant::now() + Duration::from_millis(50);
    scene.is_noticed().await;
    assert!(scene.watch.rescan > Instant::now() + RESCAN / 2);
}

/// The whole of it, as the daemon uses it.
#[tokio::test]
async fn what_the_watch_tells_of_is_what_a_reading_finds() {
    let mut scene = Scene::new(config_map);
    let mount = scene.path("manifests");
    let mut manifests = Manifests::new(&mount, "node-1");
    assert_eq!(manifests.load().unwrap().changes, [Change::Doubt(true)]);
    let service =
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}}";
    fs::create_dir(mount.join("..v2")).unwrap();
    fs::write(mount.join("..v2/web.yaml"), service).unwrap();
    symlink("..v2", mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    scene.is_noticed().await;
    let update = manifests.load().unwrap();
    assert!(matches!(&update.changes[..], [Change::Service(_), Change::Doubt(false)]), "{:?}", update.changes);
    assert_eq!(update.problems, []);
}
