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
    assert_eq!(plan["compute_source"]["from"], "formula");

    let table = fixture::nfl(&["fit", config, "--gpu", "12GiB", "--ram", "32GiB"]).expect_success();
    for word in ["device", "weights", "KV", "compute", "free", "why", "experts of blocks", "GPU0"] {
        assert!(table.contains(word), "no {word:?} in\n{table}");
    }
}

/// Bytes by kind ("model", "KV", "compute") on the GPU, and on the CPU: as llama.cpp says that it allocated them, in MiB
/// with two digits behind the point.
fn allocated(words: &str, kind: &str, is_gpu: bool) -> f64 {
    let lines = words.lines().filter_map(|line| {
        let (name, size) = line.split_once(&format!(" {kind} buffer size = "))?;
        let name = name.split_whitespace().last()?;
        let is_host = name.starts_with("CPU") || name.ends_with("_Host");
        (is_gpu != is_host).then(|| size.trim_end_matches(" MiB").parse::<f64>().unwrap())
    });
    lines.sum::<f64>() * f64::from(1 << 20)
}

/// Predicted and allocated bytes differ by less than 5 % (and the rounding of each line): of weights, cache and
/// intermediate results on each device, and in all.
pub(crate) fn assert_predicted(plan: &serde_json::Value, words: &str) {
    const ROUNDING: f64 = 0.011 * 1024.0 * 1024.0; // of two lines
    let (mut predicted_all, mut allocated_all) = (0.0, 0.0);
    for device in plan["devices"].as_array().unwrap() {
        let is_gpu = device["device"] != "CPU";
        for (key, kind) in
            [("weights_bytes", "model"), ("kv_bytes", "KV"), ("compute_bytes", "compute")]
        {
            let (predicted, allocated) =
                (device[key].as_f64().unwrap(), allocated(words, kind, is_gpu));
            let difference = (predicted - allocated).abs();
            assert!(
                difference <= 0.05 * allocated + ROUNDING,
                "{} {key}: {predicted} predicted, {allocated} allocated\n{words}",
                device["device"]
            );
            predicted_all += predicted;
            allocated_all += allocated;
        }
    }
    let ratio: f64 = predicted_all / allocated_all;
    assert!((0.95..1.05).contains(&ratio), "{predicted_all} predicted, {allocated_all} allocated");
}

#[test]
fn what_is_predicted_is_what_a_run_allocates() {
    for name in ["stories260K-F16.gguf", "stories260K-mixtral-4x-top2-Q8_0.gguf"] {
        let Some(file) = fixture::material(&format!("oracle/{name}")) else { return };
        let file = fixture::text(&file);
        for flags in [&["--ctx", "2048"][..], &["--ctx", "512", "--no-flash-attention"]] {
            // As in the file: what is laid out anew is neither mapped nor of the same size.
            let flags = [flags, &["--no-repack"]].concat();
            let plan = json(&[&["fit", file, "--json"], &flags[..]].concat());
            assert_eq!(plan["compute_source"]["from"], "llama.cpp", "{plan}");
            let run = ["run", file, "Once", "--raw", "-n", "2", "--verbose"];
            let ran = fixture::nfl(&[&run[..], &flags].concat());
            assert_eq!(ran.status, 0, "{}", ran.stderr);
            assert_predicted(&plan, &ran.stderr);
        }
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

#[test]
fn a_draft_model_is_counted_beside_the_other() {
    let configuration = |name: &str| fixture::material(&format!("checkpoints/configs/{name}.json"));
    let (Some(large), Some(small)) = (configuration("Llama-3.1-8B"), configuration("llama3_2_1b"))
    else {
        return;
    };
    let (large, small) = (fixture::text(&large), fixture::text(&small));
    let fit = ["fit", large, "--draft", small, "--json", "--gpu", "6GiB", "--ram", "16GiB"];
    let plan = json(&fit);
    assert_eq!(plan["draft"]["context"], plan["context"]);
    for name in ["GPU0", "CPU"] {
        let of = |plan: &serde_json::Value| {
            let devices = plan["devices"].as_array().unwrap();
            devices.iter().find(|device| device["device"] == name).unwrap().clone()
        };
        let used = |device: &serde_json::Value| {
            let bytes = ["weights_bytes", "kv_bytes", "compute_bytes"];
            bytes.iter().map(|key| device[key].as_u64().unwrap()).sum::<u64>()
        };
        let (model, draft) = (of(&plan), of(&plan["draft"]));
        let both = used(&model) + used(&draft);
        let margin = draft["margin_bytes"].as_u64().unwrap();
        let capacity = if name == "GPU0" { 6_u64 << 30 } else { 16 << 30 };
        assert!(both + margin <= capacity, "{name}: {both} of {capacity}");
        assert_eq!(draft["free_bytes"].as_u64().unwrap(), capacity - both);
    }
    let table = fixture::nfl(&["fit", large, "--draft", small, "--ram", "16GiB"]).expect_success();
    assert!(table.contains("draft model: llama at Q4_K_M"), "{table}");
    let ran = fixture::nfl(&["fit", large, "--draft", large, "--ram", "8GiB", "--no-mmap"]);
    assert!(ran.status == 1 && ran.stderr.contains("draft model"), "{}", ran.stderr);
    assert!(ran.stderr.contains("leave --draft out"), "{}", ran.stderr);

    // What was planned is what runs.
    let Some(file) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let file = fixture::text(&file);
    let run = ["run", file, "Once", "--raw", "-n", "8", "-t", "0", "--threads", "1"];
    let alone = fixture::nfl(&run).expect_success();
    let ran = fixture::nfl(&[&run[..], &["--draft", file, "--verbose"]].concat());
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout, alone);
    for words in ["plan     draft model", "draft    context", "as long as the other model's"] {
        assert!(ran.stderr.contains(words), "no {words:?} in\n{}", ran.stderr);
    }
}
