//! Reads what the kernel writes about itself in `/proc`. Pure.

use std::error::Error;
use std::path::Path;

use super::facts::{Capabilities, Fact, KernelRelease};

/// The release of the kernel from `/proc/sys/kernel/osrelease`.
pub(super) fn release(text: &str) -> Fact<KernelRelease> {
    let text = text.trim();
    let mut numbers = text
        .split(|sign: char| !sign.is_ascii_digit())
        .map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok(KernelRelease {
            version: (major, minor),
            text: text.to_owned(),
        }),
        _ => Err(format!("the kernel's release {text:?} is not understood")),
    }
}

/// The effective capabilities from `/proc/self/status`.
pub(super) fn capabilities(status: &str) -> Fact<Capabilities> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .map(Capabilities)
        .ok_or_else(|| "/proc/self/status does not tell the capabilities".to_owned())
}

/// Whether a directory, made or not, is on a BPF file system, from `/proc/self/mounts`.
pub(super) fn is_on_bpf_fs(mounts: &str, directory: &Path) -> bool {
    // The last of several mounts on one place is the one that is seen.
    let holder = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((Path::new(fields.next()?), fields.next()?))
        })
        .filter(|(place, _)| directory.starts_with(place))
        .max_by_key(|(place, _)| place.components().count());
    holder.is_some_and(|(_, kind)| kind == "bpf")
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_all_kinds_of_kernels_are_read() {
        for (text, version) in [
            ("6.18.44-fc-v669\n", (6, 18)),
            ("5.10.0-28-amd64", (5, 10)),
            ("6.6", (6, 6)),
            ("4.18.0-553.el8_10.x86_64", (4, 18)),
            ("7.0-rc1", (7, 0)),
        ] {
            assert_eq!(
                release(text).map(|release| release.version),
                Ok(version),
                "{text}"
            );
        }
        assert!(release("Darwin").is_err());
        assert!(release("6").is_err());
    }

    #[test]
    fn capabilities_are_those_that_are_effective() {
        let status = "CapPrm:\t000001ffffffffff\nCapEff:\t0000008000001000\n";
        let capabilities = capabilities(status).expect("told");
        assert!(capabilities.has(Capabilities::NET_ADMIN) && capabilities.has(Capabilities::BPF));
        assert!(!capabilities.has(Capabilities::SYS_ADMIN));
        assert!(super::capabilities("CapEff:\tx").is_err());
        assert!(super::capabilities("").is_err());
    }

    #[test]
    fn the_innermost_mount_decides() {
        let mounts =
            "/dev/vda / ext4 rw 0 0\nsysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        assert!(is_on_bpf_fs(mounts, Path::new("/sys/fs/bpf/dt")));
        assert!(!is_on_bpf_fs(mounts, Path::new("/sys/fs/bpfx")));
        assert!(!is_on_bpf_fs(mounts, Path::new("/var/dt")));
        let covered = format!("{mounts}tmpfs /sys/fs/bpf tmpfs rw 0 0\n");
        assert!(!is_on_bpf_fs(&covered, Path::new("/sys/fs/bpf/dt")));
    }
}
