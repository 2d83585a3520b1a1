//! The driver of a device, from `/sys`.

use std::fs;
use std::path::Path;

/// The driver of a device on its bus. Buses are the same in all network namespaces.
pub(super) fn of_device(bus: &str, device: &str) -> Option<String> {
    file_name(
        &Path::new("/sys/bus")
            .join(bus)
            .join("devices")
            .join(device)
            .join("driver"),
    )
}

/// The driver of a link, if `/sys` shows this very link and not its namesake in another namespace.
pub(super) fn of_link(name: &str, index: u32) -> Option<String> {
    let folder = Path::new("/sys/class/net").join(name);
    let shown = fs::read_to_string(folder.join("ifindex")).ok()?;
    let same = shown.trim().parse() == Ok(index);
    same.then(|| file_name(&folder.join("device/driver")))
        .flatten()
}

fn file_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}
