//! What `ansible-doc` shows.

use std::process::Command;

use serde_json::Value;

use super::stage::{Stage, collection, environment};

#[test]
fn ansible_doc_shows_every_parameter_with_its_default() {
    let stage = Stage::new();
    let doc = |arguments: &[&str]| {
        let output = stage.ansible("ansible-doc").args(arguments).output().expect("ansible-doc runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let shown = doc(&["haul.haul.haul_put"]);
    for said in [
        "cuts the file into chunks",
        "chunk_size",
        "NOPASSWD",
        "EXAMPLES",
        "RETURN VALUES",
        "checksum_algorithm",
    ] {
        assert!(shown.contains(said), "not shown: {said}\n{shown}");
    }
    assert!(doc(&["-l", "haul.haul"]).contains("haul.haul.haul_put"));

    // The action plugin takes what is documented and nothing else, with the same defaults.
    let documented: Value = serde_json::from_str(&doc(&["--json", "haul.haul.haul_put"])).expect("JSON");
    let options = &documented["haul.haul.haul_put"]["doc"]["options"];
    let script = "import json\nfrom ansible_collections.haul.haul.plugins.plugin_utils.parameters import SPEC\nprint(json.dumps(SPEC))";
    let output = Command::new(environment().join("bin/python"))
        .args(["-c", script])
        .env("PYTHONPATH", stage.path().join("collections"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let taken: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names = |object: &Value| object.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let mut documented_names = names(options);
    documented_names.sort();
    let mut taken_names = names(&taken);
    taken_names.sort();
    assert_eq!(documented_names, taken_names);
    for name in taken_names {
        for key in ["type", "default", "choices", "required", "aliases"] {
            let (shown, real) = (&options[&name][key], &taken[&name][key]);
            let absent = |value: &Value| value.is_null() || *value == false;
            assert!(shown == real || (absent(shown) && absent(real)), "{name} {key}: {shown} and {real}");
        }
    }
    assert!(collection().join("galaxy.yml").exists());
}
