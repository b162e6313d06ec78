//! What goes wrong during a run is said, and the last checkpoint stays whole.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use safetensors::SafeTensors;

use super::{Bench, lines};
use crate::fixture;

const FLAGS: [&str; 8] = ["--steps", "200", "--length", "64", "--save-every", "2", "--rank", "4"];

/// A run with a checkpoint, killed; the bytes of that.
fn stopped(bench: &Bench, folder: &str) -> Vec<u8> {
    let arguments = bench.arguments(folder, &FLAGS);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut run = fixture::command(&arguments).spawn().unwrap();
    let metrics = bench.path(&format!("{folder}/metrics.jsonl"));
    while lines(Path::new(&metrics)).len() < 4 && run.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(5));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    fs::read(bench.path(&format!("{folder}/checkpoint.safetensors"))).unwrap()
}

#[test]
fn a_loss_that_is_no_number_ends_a_run_and_not_its_checkpoint() {
    let Some(bench) = Bench::new() else { return };
    let flags = ["--steps", "9", "--length", "64", "--save-every", "1", "--rate", "1e25"];
    let ran = bench.run("run", &flags);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("step ") && ran.stderr.contains("lower --rate"), "{}", ran.stderr);
    let bytes = fs::read(bench.path("run/checkpoint.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, view) in file.iter() {
        let values = view.data().as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four));
        assert!(values.into_iter().all(f32::is_finite), "{name}");
    }
}

#[test]
fn a_base_that_was_changed_is_not_trained_on() {
    let Some(mut bench) = Bench::new() else { return };
    let copy = bench.folder.path().join("copy.gguf");
    let mut bytes = fs::read(&bench.model).unwrap();
    fs::write(&copy, &bytes).unwrap();
    bench.model = copy;
    let checkpoint = stopped(&bench, "run");
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    fs::write(&bench.model, bytes).unwrap();
    let ran = bench.run("run", &[&FLAGS[..], &["--resume"]].concat());
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("the model's file has other weights"), "{}", ran.stderr);
    assert!(fs::read(bench.path("run/checkpoint.safetensors")).unwrap() == checkpoint);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_ends_a_run_and_not_its_checkpoint() {
    let Some(bench) = Bench::new() else { return };
    let checkpoint = stopped(&bench, "run");
    let small = bench.folder.path().join("small");
    fs::create_dir(&small).unwrap();
    // As much as is there, and not another checkpoint beside it.
    let bytes = checkpoint.len() + checkpoint.len() / 2;
    let script = format!(
        "mount -t tmpfs -o size={bytes} small '{small}' || exit 77; cp '{run}'/* '{small}'; \"$0\" \"$@\"; \
         status=$?; cmp '{run}/checkpoint.safetensors' '{small}/checkpoint.safetensors' && exit $status",
        small = small.display(),
        run = bench.path("run"),
    );
    let arguments = bench.arguments("small", &[&FLAGS[..], &["--resume"]].concat());
    let template = fixture::command(&[]);
    let mut command = fixture::isolated(&["--mount"], &script, &template);
    command.arg(fixture::program()).args(&arguments);
    let Some(ran) = fixture::ran_isolated(command) else { return };
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("No space left") && ran.stderr.contains("free some space"),
        "{}",
        ran.stderr
    );
}
