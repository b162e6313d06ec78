//! `nfl fit` and `nfl tune` as a script sees them.

use crate::fixture;

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&fixture::nfl(arguments).expect_success()).unwrap()
}

#[test]
fn a_configuration_is_enough_for_a_described_machine() {
    let Some(config) = fixture::material("checkpoints/configs/Qwen3-30B-A3B.json") else { return };
    let config = fixture::text(&config);
    let described = ["fit", config, "--json", "--gpu", "12GiB", "--ram", "32GiB", "--ctx", "8192"];
    let plan = json(&described);
    assert_eq!(plan["architecture"], "qwen3moe");
    assert_eq!(plan["level"], "Q4_K_M");
    assert_eq!((&plan["context"], &plan["gpu_layers"]), (&8192.into(), &49.into()));
    let devices = plan["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2);
    let mut weights = 0;
    for device in devices {
        let bytes = |key: &str| device[key].as_u64().unwrap();
        let used = bytes("weights_bytes") + bytes("kv_bytes") + bytes("compute_bytes");
        assert_eq!(bytes("free_bytes"), bytes("capacity_bytes") - used);
        assert!(bytes("free_bytes") >= bytes("margin_bytes"));
        weights += bytes("weights_bytes");
    }
    assert_eq!(weights, plan["weights_bytes"].as_u64().unwrap());
    assert_eq!(devices[0]["kv_bytes"].as_u64(), Some(8192 * 48 * 4 * 128 * 2 * 2));

    let table = fixture::nfl(&["fit", config, "--gpu", "12GiB", "--ram", "32GiB"]).expect_success();
    for word in ["device", "weights", "KV", "compute", "free", "why", "experts of blocks", "GPU0"] {
        assert!(table.contains(word), "no {word:?} in\n{table}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let Some(config) = fixture::material("checkpoints/configs/Llama-3.1-8B.json") else { return };
    let config = fixture::text(&config);
    let ran = fixture::nfl(&["fit", config, "--ram", "8GiB", "--ctx", "131072"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("131072") && ran.stderr.contains("--ctx "), "{}", ran.stderr);
    let ran = fixture::nfl(&["fit", config, "--ram", "cats"]);
    assert_eq!(ran.status, 2);
    let ran = fixture::nfl(&["fit", config, "--override-tensor", "x=GPU3", "--ram", "8GiB"]);
    assert!(ran.stderr.contains("devices here: CPU"), "{}", ran.stderr);
}

#[test]
fn a_cache_that_does_not_suit_the_heads_never_reaches_llama_cpp() {
    let Some(file) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let ran = fixture::nfl(&["run", fixture::text(&file), "x", "--ctx", "1024", "--kv", "q4_0"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("no multiple of its blocks"), "{}", ran.stderr);
}

#[test]
fn run_says_what_was_planned() {
    let Some(file) = fixture::material("oracle/stories260K-mixtral-4x-top2-Q8_0.gguf") else {
        return;
    };
    let arguments = ["run", fixture::text(&file), "Once", "--raw", "-n", "4", "--verbose"];
    let pinned = ["--ctx", "256", "--kv", "f32,f16", "--cpu-moe", "2", "--micro-batch", "64"];
    let ran = fixture::nfl(&[&arguments[..], &pinned[..]].concat());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    for word in ["plan     context", "f32 keys, f16 values", "asked for", "context 256 tokens"] {
        assert!(ran.stderr.contains(word), "no {word:?} in\n{}", ran.stderr);
    }
}

#[test]
fn tuning_is_remembered_and_used() {
    let Some(file) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let home = tempfile::tempdir().unwrap();
    let file = fixture::text(&file);
    let run = |arguments: &[&str]| {
        let output = fixture::command(arguments).env("NFL_HOME", home.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    };
    let tune = ["tune", file, "--json", "--prompt", "32", "-n", "8", "--repeat", "1"];
    let tuned: serde_json::Value = serde_json::from_str(&run(&tune).0).unwrap();
    let plans = tuned["plans"].as_array().unwrap();
    assert!(plans.len() >= 3, "{tuned}");
    assert_eq!(plans.iter().filter(|plan| plan["chosen"] == true).count(), 1);
    assert!(plans.iter().all(|plan| plan["decode_tokens_per_second"].as_f64().unwrap() > 0.0));
    let chosen = plans.iter().find(|plan| plan["chosen"] == true).unwrap();
    let (_, stderr) = run(&["run", file, "Once", "--raw", "-n", "2", "--verbose"]);
    let words = format!("tuned    {}", chosen["plan"].as_str().unwrap());
    assert!(stderr.contains(&words), "no {words:?} in\n{stderr}");
}
