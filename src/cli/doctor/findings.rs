//! The doctor's judgement: facts in, findings out. Pure, so that machines which we do not have can be judged in tests.

use std::path::Path;

use super::cage;
use super::facts::Facts;
use crate::engine::llama::backends::{self, SOURCES};
use crate::engine::llama::{Device, DeviceKind};
use crate::engine::probe::Findings as Probe;
use crate::hardware::{GraphicsCard, Vendor};
use crate::term::units;

/// Below this, hardly a model fits.
const AVAILABLE_BYTES_LOW: u64 = 2 << 30;

/// How a finding is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Works, and could be better.
    Note,
    /// Something is not there.
    Missing,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Missing => "missing",
        }
    }
}

/// One line of the report.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) status: Status,
    pub(super) topic: &'static str,
    pub(super) text: String,
    /// What to do, mostly a command.
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn new(status: Status, topic: &'static str, text: impl Into<String>) -> Self {
        Self { status, topic, text: text.into(), advice: None }
    }

    pub(super) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Judges a machine.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![program(facts)];
    found.extend(processor(facts));
    found.extend(memory(facts));
    found.extend(devices(facts));
    found.extend(cards(facts));
    found.extend(modules(facts));
    found.extend(storage(facts));
    found.extend(cage::findings(&facts.cage));
    found
}

fn program(facts: &Facts) -> Finding {
    let version = env!("CARGO_PKG_VERSION");
    match &facts.own.refusal {
        None => Finding::new(Status::Ok, "program", format!("nfl {version}, {SOURCES}")),
        Some(reason) => {
            let text = format!("nfl {version}: llama.cpp does not start: {reason}");
            let finding = Finding::new(Status::Missing, "program", text);
            Finding { advice: facts.own.hint.clone(), ..finding }
        }
    }
}

fn processor(facts: &Facts) -> Vec<Finding> {
    let processor = &facts.processor;
    let features = processor.features.join(", ");
    let text = format!(
        "{}; {} processors, {} threads; {features}",
        processor.name, processor.logical, facts.threads
    );
    let mut found = vec![Finding::new(Status::Ok, "cpu", text.trim_end_matches("; "))];
    let unused = processor.unused(&facts.own.compiled_features);
    // A program that does not start says nothing of what it was compiled for.
    if !unused.is_empty() && facts.own.refusal.is_none() {
        let text = format!("this build leaves unused: {}", unused.join(", "));
        let finding = Finding::new(Status::Note, "cpu", text);
        found.push(finding.advise("build for this machine's processor: ./install.sh"));
    }
    found
}

fn memory(facts: &Facts) -> Vec<Finding> {
    let memory = &facts.memory;
    if memory.total_bytes == 0 {
        return vec![Finding::new(Status::Note, "memory", "this system does not tell")];
    }
    let limit = memory.limit_bytes.map(|limit| format!(", limited to {}", units::bytes(limit)));
    let pages = facts.huge_pages.as_ref().map(|setting| format!("; huge pages: {setting}"));
    let swap = match memory.swap_total_bytes {
        0 => "; no swap".to_owned(),
        total => {
            format!("; swap {}, {} free", units::bytes(total), units::bytes(memory.swap_free_bytes))
        }
    };
    let text = format!(
        "{}{}, {} available{swap}{}",
        units::bytes(memory.total_bytes),
        limit.unwrap_or_default(),
        units::bytes(memory.available_bytes),
        pages.unwrap_or_default()
    );
    let finding = if memory.available_bytes < AVAILABLE_BYTES_LOW {
        let advice = "close other programs, or raise the limit of the container";
        Finding::new(Status::Note, "memory", text).advise(advice)
    } else {
        Finding::new(Status::Ok, "memory", text)
    };
    vec![finding]
}

fn devices(facts: &Facts) -> Vec<Finding> {
    let describe = |device: &Device| {
        let memory = match device.kind {
            // ggml reports all of main memory as free, which the line above knows better.
            DeviceKind::Cpu => String::new(),
            _ => format!(
                ", {}, {} free{}",
                units::bytes(device.memory_bytes),
                units::bytes(device.memory_free_bytes),
                if device.is_integrated { ", shared with the processor" } else { "" }
            ),
        };
        let driver = card_of(facts, device).and_then(driver).map(|driver| format!("; {driver}"));
        format!("{}: {}{memory}{}", device.name, device.description, driver.unwrap_or_default())
    };
    let finding = |device: &Device| Finding::new(Status::Ok, "device", describe(device));
    facts.devices().map(finding).collect()
}

fn same_place(device: &Device, card: &GraphicsCard) -> bool {
    device.bus_id.as_ref().is_some_and(|id| id.eq_ignore_ascii_case(&card.bus_id))
}

fn card_of<'a>(facts: &'a Facts, device: &Device) -> Option<&'a GraphicsCard> {
    facts.cards.iter().find(|card| same_place(device, card))
}

fn driver(card: &GraphicsCard) -> Option<String> {
    let name = card.driver.as_ref()?;
    let version = card.driver_version.as_ref().map(|version| format!(" {version}"));
    Some(format!("driver {name}{}", version.unwrap_or_default()))
}

/// Cards that nothing computes on.
fn cards(facts: &Facts) -> Vec<Finding> {
    let gpus: Vec<&Device> =
        facts.devices().filter(|device| device.kind == DeviceKind::Gpu).collect();
    // A back-end that does not say where its devices sit may mean any card.
    let is_used = |card: &GraphicsCard| {
        gpus.iter().any(|device| device.bus_id.is_none() || same_place(device, card))
    };
    let mut found: Vec<Finding> =
        facts.cards.iter().filter(|card| !is_used(card)).map(idle).collect();
    if facts.cards.is_empty() && gpus.is_empty() {
        let text = "no graphics card: models run on the CPU";
        found.push(Finding::new(Status::Note, "gpu", text));
    }
    found
}

fn idle(card: &GraphicsCard) -> Finding {
    let driver = driver(card).unwrap_or("no driver".to_owned());
    let text = format!(
        "{} card {} at {}, {driver}: not used",
        card.vendor.name(),
        card.identity,
        card.bus_id
    );
    let advice = match (card.vendor, card.driver.as_deref()) {
        (Vendor::Nvidia, Some("nvidia")) => "build its back-end: ./install.sh cuda",
        (Vendor::Nvidia, _) => {
            "install NVIDIA's driver, then build the back-end: ./install.sh cuda"
        }
        (Vendor::Amd | Vendor::Intel, Some(_)) => "build its back-end: ./install.sh vulkan",
        (Vendor::Amd | Vendor::Intel, None) => {
            "load its kernel driver and install Vulkan's: apt-get install mesa-vulkan-drivers, then \
             build the back-end: ./install.sh vulkan"
        }
        // Virtual and server-board cards draw a console and compute nothing.
        (Vendor::Other, _) => return Finding::new(Status::Note, "gpu", text),
    };
    Finding::new(Status::Missing, "gpu", text).advise(advice)
}

fn modules(facts: &Facts) -> Vec<Finding> {
    let Some(folder) = &facts.folder else {
        let text = "switched off by NFL_BACKENDS=none, or no folder for data is known";
        return vec![Finding::new(Status::Note, "module", text)];
    };
    let mut found: Vec<Finding> =
        facts.modules.iter().map(|(path, probe)| module(path, probe)).collect();
    if found.is_empty() {
        let text = format!("no back-end module in {}", folder.display());
        // Without a card there is nothing to get; with one, its own line says what.
        found.push(Finding::new(Status::Note, "module", text));
    }
    for other in &facts.other_folders {
        let text = format!("{}: modules for another version of nfl", other.display());
        let advice = "build them again with ./install.sh, or remove the folder";
        found.push(Finding::new(Status::Note, "module", text).advise(advice));
    }
    found
}

fn module(path: &Path, probe: &Probe) -> Finding {
    let name = backends::backend_of(path).unwrap_or("module");
    let place = path.display();
    if let Some(reason) = &probe.refusal {
        let finding =
            Finding::new(Status::Missing, "module", format!("{name}: {reason} ({place})"));
        return Finding { advice: probe.hint.clone(), ..finding };
    }
    match probe.devices.len() {
        0 => {
            let text = format!("{name}: finds no device ({place})");
            let advice = match name {
                "vulkan" => {
                    "vulkaninfo --summary lists what Vulkan sees; GGML_VK_VISIBLE_DEVICES=0 takes software too"
                }
                "cuda" => "nvidia-smi lists what the driver sees",
                _ => return Finding::new(Status::Note, "module", text),
            };
            Finding::new(Status::Note, "module", text).advise(advice)
        }
        count => {
            let plural = if count == 1 { "" } else { "s" };
            Finding::new(Status::Ok, "module", format!("{name}: {count} device{plural} ({place})"))
        }
    }
}

fn storage(facts: &Facts) -> Option<Finding> {
    let storage = facts.storage.as_ref()?;
    let ahead =
        storage.read_ahead_bytes.map(|bytes| format!("reads {} ahead", units::bytes(bytes)));
    let name = storage.name.as_deref().unwrap_or("file system without a disk of its own");
    let text = format!("{name}: {}", ahead.unwrap_or("read-ahead unknown".to_owned()));
    Some(if storage.is_rotational == Some(true) {
        // Virtual disks often say so without having any.
        Finding::new(Status::Note, "disk", format!("{text}; says that it has moving parts"))
    } else {
        Finding::new(Status::Ok, "disk", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::{Memory, Processor};

    fn card(vendor: Vendor, driver: Option<&str>) -> GraphicsCard {
        GraphicsCard {
            bus_id: "0000:01:00.0".to_owned(),
            vendor,
            identity: "1:2".to_owned(),
            driver: driver.map(str::to_owned),
            driver_version: driver.map(|_| "1.2".to_owned()),
        }
    }

    fn gpu(bus_id: Option<&str>) -> Device {
        Device {
            name: "CUDA0".to_owned(),
            description: "A card".to_owned(),
            kind: DeviceKind::Gpu,
            is_integrated: false,
            backend: "CUDA".to_owned(),
            bus_id: bus_id.map(str::to_owned),
            memory_bytes: 12 << 30,
            memory_free_bytes: 11 << 30,
        }
    }

    fn about<'a>(found: &'a [Finding], topic: &str) -> Vec<&'a Finding> {
        found.iter().filter(|finding| finding.topic == topic).collect()
    }

    #[test]
    fn a_card_without_a_driver_or_back_end_is_missing_with_advice() {
        for (vendor, driver, advice) in [
            (Vendor::Nvidia, None, "NVIDIA's driver"),
            (Vendor::Nvidia, Some("nvidia"), "./install.sh cuda"),
            (Vendor::Nvidia, Some("nouveau"), "NVIDIA's driver"),
            (Vendor::Amd, Some("amdgpu"), "./install.sh vulkan"),
            (Vendor::Intel, None, "mesa-vulkan-drivers"),
        ] {
            let facts = Facts { cards: vec![card(vendor, driver)], ..Facts::default() };
            let found = findings(&facts);
            let gpu = about(&found, "gpu");
            assert_eq!(gpu.len(), 1);
            assert_eq!(gpu[0].status, Status::Missing);
            assert!(gpu[0].advice.as_ref().unwrap().contains(advice), "{:?}", gpu[0]);
        }
        let facts = Facts { cards: vec![card(Vendor::Other, None)], ..Facts::default() };
        assert_eq!(about(&findings(&facts), "gpu")[0].status, Status::Note);
    }

    #[test]
    fn a_card_that_a_module_drives_shows_its_driver() {
        let probe = Probe {
            backend: Some("CUDA".to_owned()),
            devices: vec![gpu(Some("0000:01:00.0"))],
            ..Probe::default()
        };
        let facts = Facts {
            cards: vec![card(Vendor::Nvidia, Some("nvidia"))],
            folder: Some("/m".into()),
            modules: vec![("/m/libggml-cuda.so".into(), probe)],
            ..Facts::default()
        };
        let found = findings(&facts);
        assert!(about(&found, "gpu").is_empty(), "{found:?}");
        assert_eq!(
            about(&found, "device")[0].text,
            "CUDA0: A card, 12.0 GiB, 11.0 GiB free; driver nvidia 1.2"
        );
        assert_eq!(about(&found, "module")[0].text, "cuda: 1 device (/m/libggml-cuda.so)");
        assert_eq!(about(&found, "module")[0].status, Status::Ok);
    }

    #[test]
    fn a_refused_module_says_why_and_what_to_do() {
        let probe = Probe {
            refusal: Some("libcuda.so.1: not there".to_owned()),
            hint: Some("install it".to_owned()),
            ..Probe::default()
        };
        let modules = vec![("/m/libggml-cuda.so".into(), probe)];
        let facts = Facts { folder: Some("/m".into()), modules, ..Facts::default() };
        let found = findings(&facts);
        let module = about(&found, "module")[0];
        assert_eq!(
            (module.status, module.advice.as_deref()),
            (Status::Missing, Some("install it"))
        );
        assert!(module.text.starts_with("cuda: libcuda.so.1: not there"), "{}", module.text);
    }

    #[test]
    fn limits_and_unused_instructions_are_told() {
        let facts = Facts {
            processor: Processor { features: vec!["AVX2", "AVX-512"], ..Processor::default() },
            own: Probe { compiled_features: vec!["AVX2".to_owned()], ..Probe::default() },
            memory: Memory {
                total_bytes: 16 << 30,
                available_bytes: 1 << 30,
                limit_bytes: Some(4 << 30),
                ..Memory::default()
            },
            ..Facts::default()
        };
        let found = findings(&facts);
        assert!(about(&found, "cpu")[1].text.ends_with("AVX-512"), "{found:?}");
        let memory = about(&found, "memory")[0];
        assert_eq!(memory.status, Status::Note);
        assert_eq!(memory.text, "16.0 GiB, limited to 4.00 GiB, 1.00 GiB available; no swap");
    }
}
