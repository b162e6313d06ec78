//! Graphics cards as the system's bus shows them, whether or not a driver or back-end knows them: a
//! card that nothing drives is what a person wants to hear of.

use std::fs;
use std::path::Path;

/// A card on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphicsCard {
    /// Where it sits, such as "0000:01:00.0".
    pub bus_id: String,
    /// Who made it.
    pub vendor: Vendor,
    /// Vendor and device numbers, such as "10de:2204".
    pub identity: String,
    /// The kernel's driver that has taken it.
    pub driver: Option<String>,
    /// That driver's version, where it tells.
    pub driver_version: Option<String>,
}

/// Makers of cards that ggml has back-ends for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// NVIDIA.
    Nvidia,
    /// AMD.
    Amd,
    /// Intel.
    Intel,
    /// Anybody else; virtual cards too.
    Other,
}

impl Vendor {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "NVIDIA",
            Self::Amd => "AMD",
            Self::Intel => "Intel",
            Self::Other => "unknown maker",
        }
    }
}

/// Display controllers and processing accelerators: the first byte of the class on the bus.
const CLASSES: [&str; 2] = ["0x03", "0x12"];

/// The cards on the bus; none where the system has no such table.
pub fn graphics_cards() -> Vec<GraphicsCard> {
    cards(Path::new("/"))
}

/// Reads the files below `root`, which is another folder only in tests.
fn cards(root: &Path) -> Vec<GraphicsCard> {
    let Ok(entries) = fs::read_dir(root.join("sys/bus/pci/devices")) else { return Vec::new() };
    let mut cards: Vec<GraphicsCard> =
        entries.filter_map(|entry| card(root, &entry.ok()?.path())).collect();
    cards.sort_by(|a, b| a.bus_id.cmp(&b.bus_id));
    cards
}

fn card(root: &Path, folder: &Path) -> Option<GraphicsCard> {
    let read = |name: &str| Some(fs::read_to_string(folder.join(name)).ok()?.trim().to_owned());
    let class = read("class")?;
    if !CLASSES.iter().any(|wanted| class.starts_with(wanted)) {
        return None;
    }
    let (vendor, device) = (read("vendor")?, read("device")?);
    let driver = fs::read_link(folder.join("driver")).ok();
    let driver = driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let number = |text: &str| text.strip_prefix("0x").unwrap_or(text).to_owned();
    Some(GraphicsCard {
        bus_id: folder.file_name()?.to_str()?.to_owned(),
        vendor: match vendor.as_str() {
            "0x10de" => Vendor::Nvidia,
            "0x1002" => Vendor::Amd,
            "0x8086" => Vendor::Intel,
            _ => Vendor::Other,
        },
        identity: format!("{}:{}", number(&vendor), number(&device)),
        driver_version: driver.as_deref().and_then(|driver| version(root, driver)),
        driver,
    })
}

/// The version of a kernel driver: modules of the kernel itself have none.
fn version(root: &Path, driver: &str) -> Option<String> {
    let text = fs::read_to_string(root.join("sys/module").join(driver).join("version")).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_told_from_other_devices() {
        let root = tempfile::tempdir().unwrap();
        let devices = root.path().join("sys/bus/pci/devices");
        for (bus_id, class, vendor, device) in [
            ("0000:01:00.0", "0x030000", "0x10de", "0x2204"),
            ("0000:00:02.0", "0x030000", "0x8086", "0x9a49"),
            ("0000:00:1f.0", "0x060100", "0x8086", "0x0001"),
        ] {
            let folder = devices.join(bus_id);
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in [("class", class), ("vendor", vendor), ("device", device)] {
                fs::write(folder.join(name), format!("{text}\n")).unwrap();
            }
        }
        let drivers = root.path().join("sys/bus/pci/drivers/nvidia");
        fs::create_dir_all(&drivers).unwrap();
        std::os::unix::fs::symlink(&drivers, devices.join("0000:01:00.0/driver")).unwrap();
        fs::create_dir_all(root.path().join("sys/module/nvidia")).unwrap();
        fs::write(root.path().join("sys/module/nvidia/version"), "580.65.06\n").unwrap();

        let found = cards(root.path());
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].vendor, found[0].driver.as_deref()), (Vendor::Intel, None));
        assert_eq!(found[1].vendor, Vendor::Nvidia);
        assert_eq!(found[1].identity, "10de:2204");
        assert_eq!(found[1].driver.as_deref(), Some("nvidia"));
        assert_eq!(found[1].driver_version.as_deref(), Some("580.65.06"));
        assert_eq!(cards(Path::new("/nowhere")), Vec::new());
    }
}
