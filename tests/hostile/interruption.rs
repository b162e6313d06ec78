//! What happens in the middle: files that change under a running model, full disks, kills, Ctrl-C; and outputs that are
//! in the way.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Scene, check, confined, finish, judge, wait};
use crate::fixture::{self, command, files_of, nfl, text};

/// A reply that takes a while.
fn long_reply(file: &Path, tokens: &str) -> Child {
    let run =
        ["run", text(file), "hi", "--raw", "--temperature", "0", "--ignore-eos", "--threads", "1"];
    let mut command = command(&[&run[..], &["--context", "32768", "--tokens", tokens]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut words = [0; 16];
    child.stdout.as_mut().unwrap().read_exact(&mut words).unwrap();
    child
}

/// Case 16: the pages of a file that became shorter are gone; whoever reads them is killed by the system.
#[cfg(target_os = "linux")]
#[test]
fn a_model_that_shrinks_costs_the_reply_and_is_reported() {
    let scene = Scene::dense();
    let child = long_reply(&scene.model(), "30000");
    let file = std::fs::File::options().write(true).open(scene.model()).unwrap();
    file.set_len(0).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: the engine's process died: signal 7 (bus error)"), "{stderr}");
    assert!(stderr.contains("hint: the model's file was changed or cut"), "{stderr}");
}

/// Case 17.
#[cfg(unix)]
#[test]
fn a_model_that_is_replaced_goes_on_unharmed() {
    let scene = Scene::dense();
    let reply = |disturb: &dyn Fn()| {
        let child = long_reply(&scene.model(), "3000");
        disturb();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let calm = reply(&|| ());
    let replaced = reply(&|| {
        let other = scene.file("other.gguf", b"not a model");
        std::fs::rename(other, scene.model()).unwrap();
    });
    assert!(calm.len() > 1000 && calm == replaced);
    scene.check("17 afterwards", "run", &scene.model(), Err("begins with"));
}

const CONVERT: [&str; 5] = ["--level", "q8_0,f16", "--threads", "1", "--quiet"];

/// Case 32: a disk that is full after half of the file, which the program did not know when it began.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing() {
    let scene = Scene::dense();
    let output = scene.output();
    std::fs::create_dir(&output).unwrap();
    let script = "mount -t tmpfs -o size=300k none \"$1\" || exit 77\n\
        \"$0\" convert \"$2\" --level f32 --output \"$1\"; status=$?; ls -A \"$1\"; exit $status";
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    unshare.arg(fixture::program()).args([&output, &scene.checkpoint()]).env("NO_COLOR", "1");
    let Ok(probe) = Command::new("unshare").args(["--user", "--mount", "true"]).status() else {
        eprintln!("skipped: no unshare");
        return;
    };
    let ran = finish("32", unshare);
    if !probe.success() || ran.status == 77 {
        eprintln!("skipped: no mount of one's own: {}", ran.stderr);
        return;
    }
    let ran = judge("32 full disk", ran, Err("No space left"));
    assert!(ran.stderr.contains("make room"), "{}", ran.stderr);
}

/// Case 32: the system's own limit on files, which is enforced by a signal.
#[cfg(unix)]
#[test]
fn a_limit_on_files_is_an_error() {
    let scene = Scene::dense();
    let limited = |arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 300; exec \"$0\" \"$@\""]).arg(fixture::program());
        command.args(arguments).env("NO_COLOR", "1");
        command
    };
    let (output, checkpoint) = (scene.output(), scene.checkpoint());
    let convert = ["convert", text(&checkpoint), "--level", "f32", "--output", text(&output)];
    let ran = judge("32 limit", finish("32 limit", limited(&convert)), Err("files may have"));
    assert!(ran.stderr.contains("ulimit -f"), "{}", ran.stderr);
    assert_eq!(files_of(&output), [""; 0]);
    let (config, other) = (scene.path("config.json"), scene.path("other"));
    let synthesize = ["synthesize", text(&config), "--dtype", "f32", "-o", text(&other)];
    let ran = finish("32 limit", limited(&synthesize));
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("files may have"), "{}", ran.stderr);
    assert!(!other.exists());
}

/// A checkpoint that takes long enough to convert to be met in the middle.
fn slow() -> (Scene, Vec<String>) {
    let config = super::DENSE.replace("\"num_hidden_layers\":2", "\"num_hidden_layers\":3");
    let scene = Scene::of(&format!("{config}}}"), &["--hidden", "512", "--intermediate", "1536"]);
    let (checkpoint, output) = (scene.checkpoint(), scene.output());
    let convert = ["convert", text(&checkpoint), "--output", text(&output)];
    let convert = [&convert[..], &["--level", "f16,q4_k_m", "--threads", "1"]].concat();
    (scene, convert.into_iter().map(str::to_owned).collect())
}

fn start(arguments: &[String]) -> Child {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = command(&arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Case 32: whenever the program is killed, what has the final name is whole, and the next conversion sweeps up.
#[cfg(unix)]
#[test]
fn a_killed_conversion_leaves_no_half_file() {
    let (scene, convert) = slow();
    let began = Instant::now();
    assert_eq!(wait("32", &mut start(&convert)), 0);
    let took = began.elapsed();
    let names = ["tiny-F16.gguf", "tiny-Q4_K_M.gguf"];
    let whole = names.map(|name| std::fs::read(scene.output().join(name)).unwrap());
    let mut met = 0;
    for moment in 1..8 {
        std::fs::remove_dir_all(scene.output()).unwrap();
        std::fs::create_dir(scene.output()).unwrap();
        let mut child = start(&convert);
        std::thread::sleep(took * moment / 8);
        child.kill().unwrap();
        child.wait().unwrap();
        for name in files_of(&scene.output()) {
            if let Some(place) = names.iter().position(|known| *known == name) {
                let bytes = std::fs::read(scene.output().join(&name)).unwrap();
                assert!(bytes == whole[place], "{name} is not whole");
            } else {
                assert!(name.starts_with(".nfl-tiny-") && name.ends_with(".partial"), "{name}");
                met += 1;
            }
        }
    }
    assert!(met > 0, "no kill met a conversion within {took:?}");
    let again = [&convert[..], &["--overwrite".to_owned()]].concat();
    assert_eq!(wait("32 again", &mut start(&again)), 0);
    assert_eq!(files_of(&scene.output()), names);
}

/// Case 32: Ctrl-C cleans up.
#[cfg(unix)]
#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let (scene, convert) = slow();
    let mut child = start(&convert);
    let began = Instant::now();
    while files_of(&scene.output()).len() < 2 && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let process = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &process]).status().unwrap().success());
    assert_eq!(wait("32", &mut child), 130);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.contains("error: interrupted"), "{stderr}");
    assert_eq!(files_of(&scene.output()), [""; 0], "{stderr}");
}

/// Outputs that cannot be written, for root too.
#[cfg(unix)]
#[test]
fn outputs_that_cannot_be() {
    let scene = Scene::dense();
    let (checkpoint, model) = (scene.checkpoint(), scene.model());
    let read_only = scene.path("read-only");
    std::fs::create_dir(&read_only).unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    std::fs::set_permissions(&read_only, permissions).unwrap();
    let below = read_only.join("below");
    let mut cases = vec![text(&model), "/dev/null/x"];
    if std::fs::create_dir(&below).is_err() {
        cases.extend([text(&read_only), text(&below)]);
    } else {
        eprintln!("skipped: root writes to directories that are read-only");
    }
    for output in cases {
        for (command, source) in [("convert", &checkpoint), ("quantize", &model)] {
            let arguments = [&[command, text(source), "--output", output][..], &CONVERT].concat();
            let ran = finish(output, confined(&arguments));
            assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{output}: {}", ran.stderr);
            assert!(ran.stderr.starts_with("error: cannot write"), "{output}: {}", ran.stderr);
        }
    }
    assert_eq!(std::fs::read(&model).unwrap()[..4], *b"GGUF");
}

/// Case 33.
#[cfg(unix)]
#[test]
fn outputs_that_exist_or_are_the_input() {
    use std::os::unix::fs::symlink;

    let scene = Scene::dense();
    let (model, folder) = (scene.model(), scene.folder.path().to_owned());
    let before = std::fs::read(&model).unwrap();
    let linked = scene.path("linked");
    symlink(&folder, &linked).unwrap();
    let round = folder.join("tiny").join("..");
    let output = scene.output();
    std::fs::create_dir(&output).unwrap();
    let target = output.join("tiny-F32.gguf");
    let quantize = |case: &str, output: &Path, overwrite: bool, expected: Result<(), &str>| {
        let quantize =
            ["quantize", text(&model), "--level", "f32", "--quiet", "--output", text(output)];
        let overwrite: &[&str] = if overwrite { &["--overwrite"] } else { &[] };
        check(case, &[&quantize[..], overwrite].concat(), expected);
        assert!(std::fs::read(&model).unwrap() == before, "{case}: the input changed");
        assert!(!files_of(output).iter().any(|name| name.ends_with(".partial")), "{case}");
    };
    for (case, output) in [("itself", &folder), ("by a link", &linked), ("round about", &round)] {
        quantize(case, output, false, Err("output is the input"));
        quantize(case, output, true, Err("output is the input"));
    }
    symlink(&model, &target).unwrap();
    quantize("a link to the input", &output, true, Err("output is the input"));
    std::fs::remove_file(&target).unwrap();
    symlink("nowhere", &target).unwrap();
    quantize("a link to nowhere", &output, false, Err("output exists"));
    std::fs::remove_file(&target).unwrap();
    // Another name of the same file: replacing the name leaves the file alone.
    std::fs::hard_link(&model, &target).unwrap();
    quantize("a second name", &output, false, Err("output"));
    std::fs::remove_file(&target).unwrap();
    std::fs::write(&target, "mine").unwrap();
    quantize("somebody's", &output, false, Err("output exists"));
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    quantize("somebody's", &output, true, Ok(()));
    assert_eq!(std::fs::read(&target).unwrap()[..4], *b"GGUF");
    assert_eq!(nfl(&["show", text(&target)]).status, 0);

    // The weights of a checkpoint under the name of the output.
    std::fs::remove_file(&target).unwrap();
    symlink(scene.checkpoint().join("model.safetensors"), &target).unwrap();
    let checkpoint = scene.checkpoint();
    let convert = ["convert", text(&checkpoint), "--level", "f32", "--output", text(&output)];
    check("the weights", &[&convert[..], &["--overwrite"]].concat(), Err("output is the input"));
}
