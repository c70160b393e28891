//! What people install: manifests that Kubernetes takes, settings that the command understands.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::run;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes")
}

fn manifests() -> String {
    std::fs::read_to_string(folder().join("bmdb.yaml")).expect("it is there")
}

/// For how long Kubernetes waits after SIGTERM.
pub(crate) fn grace() -> std::time::Duration {
    let manifests = manifests();
    let told = manifests.split("terminationGracePeriodSeconds: ").nth(1);
    let seconds = told.and_then(|rest| rest.lines().next()?.parse().ok());
    std::time::Duration::from_secs(seconds.expect("it says so"))
}

/// What the validator of a folder says. `None`: it cannot be had here.
fn validated(folder: &Path) -> Option<(bool, String)> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kubernetes-validate");
    let ended = Command::new(folder.join("validate"))
        .env("BMDB_TEST_KUBERNETES_VENV", target)
        .output()
        .expect("it can be run");
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    if ended.status.code() == Some(3) {
        eprintln!("{said}");
        return None;
    }
    Some((ended.status.success(), said))
}

#[test]
fn the_manifests_are_what_kubernetes_takes() {
    let Some((good, said)) = validated(&folder()) else {
        return;
    };
    assert!(good, "{said}");
    for kind in ["serviceaccount", "configmap", "deployment", "service", "networkpolicy"] {
        assert!(said.contains(&format!("passed for resource {kind}/bmdb")), "{said}");
    }
    // And what it does not take, it says.
    let broken = tempfile::tempdir().expect("there is room");
    std::fs::copy(folder().join("validate"), broken.path().join("validate")).expect("it can be copied");
    let text = manifests().replace("readOnlyRootFilesystem: true", "readOnlyRootFileSystem: true");
    std::fs::write(broken.path().join("bmdb.yaml"), text).expect("it can be written");
    let (good, said) = validated(broken.path()).expect("it is there by now");
    assert!(!good && said.contains("readOnlyRootFileSystem"), "{said}");
}

#[test]
fn the_settings_in_the_manifests_are_understood() {
    let manifests = manifests();
    let settings = manifests.split("  serve.toml: |\n").nth(1).expect("they are there");
    let settings: String = settings
        .lines()
        .take_while(|line| line.starts_with("    "))
        .map(|line| format!("{}\n", line.trim_start()))
        .collect();
    let folder = tempfile::tempdir().expect("there is room");
    let mut here = settings.clone();
    // The secrets are mounted where the settings look for them.
    for (secret, file) in [("databases", "url"), ("databases", "read-url"), ("tokens", "tokens")] {
        let mounted = format!("/run/secrets/bmdb/{secret}/{file}");
        assert!(settings.contains(&mounted) && manifests.contains(&format!("mountPath: /run/secrets/bmdb/{secret},")));
        let ours = folder.path().join(file);
        std::fs::write(&ours, "postgres://bmdb@127.0.0.1:1/fleet\n").expect("it can be written");
        here = here.replace(&format!("{mounted:?}"), &format!("{:?}", ours.display().to_string()));
    }
    let file = folder.path().join("serve.toml");
    std::fs::write(&file, here).expect("it can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bmdb"));
    command
        .args(["serve", "--print-settings", "--settings"])
        .arg(&file)
        .env_clear();
    let said = run(command);
    assert!(said.status == 0 && said.out.contains("0.0.0.0:8080"), "{said:?}");
}
