//! Loading the programs and hanging them on interfaces.
//!
//! XDP only ever in native mode, on an empty slot or on one whose link is pinned by us. tcx where the kernel has it (6.6),
//! first on ingress and last on egress. A link that is pinned is updated in place; one whose interface vanished is made
//! anew.

use std::io;
use std::path::PathBuf;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use super::maps::{self, MapsError, NodeMaps};
use super::pins::NodePins;
use super::ring::EventRing;
use super::{OBJECT, is_built_in};

/// Whatever went wrong below.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Where a program hangs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hook {
    /// Native XDP.
    Xdp,
    /// tc ingress.
    TcIngress,
    /// tc egress.
    TcEgress,
}

impl Hook {
    /// All hooks.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::TcIngress, Self::TcEgress];

    /// Name of its program in the object.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "xdp_ingress",
            Self::TcIngress => "tc_ingress",
            Self::TcEgress => "tc_egress",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::TcIngress => "tc-ingress",
            Self::TcEgress => "tc-egress",
        }
    }
}

/// Why the programs cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This binary has none.
    #[error("this binary was built without BPF programs; build it with: cargo xtask build")]
    NotBuiltIn,
    /// The kernel refused the maps or the object makes no sense.
    #[error("cannot load the BPF object{}", hint(.source.as_ref()))]
    Object {
        /// Cause.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// The kernel refused a program.
    #[error("the kernel refuses the program {program}{}", permission_hint(.source.as_ref()))]
    Program {
        /// Name of the program.
        program: &'static str,
        /// Cause, with the verifier's log.
        #[source]
        source: Box<ProgramError>,
    },
    /// Its maps cannot be used.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// Why a program cannot hang on an interface.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Somebody else's program is there.
    #[error("the XDP slot of {interface} is taken by another program")]
    Taken {
        /// Interface.
        interface: String,
    },
    /// The driver has no native XDP, or not with this MTU or these offloads.
    #[error("{interface} has no native XDP as it is set up")]
    Unsupported {
        /// Interface.
        interface: String,
        /// Cause.
        #[source]
        source: Cause,
    },
    /// Anything else.
    #[error("cannot attach {program} to {interface}")]
    Failed {
        /// Name of the program.
        program: &'static str,
        /// Interface.
        interface: String,
        /// Cause.
        #[source]
        source: Cause,
    },
}

/// The loaded programs of one node.
pub struct Programs {
    object: Ebpf,
    pins: NodePins,
    #[cfg(feature = "trace")]
    trace: Option<super::trace::TraceLog>,
}

impl Programs {
    /// Loads the programs, with the maps that are pinned already or else new ones.
    ///
    /// `mark` is the socket mark of our probes.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(pins: NodePins, mark: u32) -> Result<(Self, NodeMaps, EventRing), LoadError> {
        if !is_built_in() {
            return Err(LoadError::NotBuiltIn);
        }
        let mut loader = EbpfLoader::new();
        loader
            .default_map_pin_directory(pins.maps())
            .override_global("PROBE_MARK", &mark, true);
        #[cfg(feature = "trace")]
        let level = super::trace::level();
        #[cfg(feature = "trace")]
        loader.override_global(aya_log::LEVEL, &level, false);
        let mut object = loader.load(OBJECT).map_err(|source| LoadError::Object {
            source: Box::new(source),
        })?;
        load_programs(&mut object)?;
        let maps = NodeMaps::of_object(&mut object)?;
        let ring = maps::take_ring(&mut object)?;
        let programs = Self {
            #[cfg(feature = "trace")]
            trace: super::trace::TraceLog::of_object(&mut object),
            object,
            pins,
        };
        Ok((programs, maps, ring))
    }

    /// Passes on what the programs logged; programs outside of development log nothing.
    pub fn flush_log(&mut self) {
        #[cfg(feature = "trace")]
        if let Some(trace) = &mut self.trace {
            trace.flush();
        }
    }

    /// Hangs a program on an interface, or updates the link that is pinned there. True when it took over such a link.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(
        &mut self,
        interface: &str,
        ifindex: u32,
        hook: Hook,
    ) -> Result<bool, AttachError> {
        let pin = self.pin(interface, hook);
        // A link whose interface vanished refuses the update (ENOLINK), also if another of the same name came.
        if let Ok(link) = PinnedLink::from_pin(&pin)
            && self.take_over(FdLink::from(link), hook).is_ok()
        {
            return Ok(true);
        }
        let _ = std::fs::remove_file(&pin);
        let link = self.attach_anew(interface, ifindex, hook)?;
        link.pin(&pin)
            .map_err(|source| failed(interface, hook, source.into()))?;
        Ok(false)
    }

    /// Takes a program off an interface; one that is not there is not missed.
    pub fn detach(&mut self, interface: &str, hook: Hook) {
        let _ = std::fs::remove_file(self.pin(interface, hook));
    }

    /// The kernel's number of a loaded program.
    #[must_use]
    pub fn program_id(&self, hook: Hook) -> Option<u32> {
        let info = self.object.program(hook.program())?.info().ok()?;
        Some(info.id())
    }

    /// The kernel's number of a pinned link.
    #[must_use]
    pub fn link_id(&self, interface: &str, hook: Hook) -> Option<u32> {
        let link = FdLink::from(PinnedLink::from_pin(self.pin(interface, hook)).ok()?);
        Some(link.info().ok()?.id())
    }

    fn pin(&self, interface: &str, hook: Hook) -> PathBuf {
        // bpffs refuses dots, which VLAN interfaces have in their names; `%` is in no name.
        let name = interface.replace('.', "%");
        self.pins.links().join(format!("{name}-{}", hook.suffix()))
    }

    fn take_over(&mut self, link: FdLink, hook: Hook) -> Result<(), Cause> {
        match hook {
            Hook::Xdp => {
                let program = xdp(&mut self.object)?;
                let id = program.attach_to_link(link.try_into()?)?;
                // The pin keeps the link; this process's handle of it is not needed.
                drop(program.take_link(id)?);
            }
            Hook::TcIngress | Hook::TcEgress => {
                let program = classifier(&mut self.object, hook)?;
                let id = program.attach_to_link(link.try_into()?)?;
                // The pin keeps the link; this process's handle of it is not needed.
                drop(program.take_link(id)?);
            }
        }
        Ok(())
    }

    fn attach_anew(
        &mut self,
        interface: &str,
        ifindex: u32,
        hook: Hook,
    ) -> Result<FdLink, AttachError> {
        match hook {
            Hook::Xdp => self
                .attach_xdp(ifindex)
                .map_err(|source| xdp_refused(interface, source)),
            Hook::TcIngress => self
                .attach_tc(interface, hook, TcAttachType::Ingress, LinkOrder::first())
                .map_err(|source| failed(interface, hook, source)),
            Hook::TcEgress => self
                .attach_tc(interface, hook, TcAttachType::Egress, LinkOrder::last())
                .map_err(|source| failed(interface, hook, source)),
        }
    }

    fn attach_xdp(&mut self, ifindex: u32) -> Result<FdLink, Cause> {
        let program = xdp(&mut self.object)?;
        let id = program.attach_to_if_index(ifindex, XdpMode::Driver)?;
        Ok(program.take_link(id)?.try_into()?)
    }

    fn attach_tc(
        &mut self,
        interface: &str,
        hook: Hook,
        attach_type: TcAttachType,
        order: LinkOrder,
    ) -> Result<FdLink, Cause> {
        let program = classifier(&mut self.object, hook)?;
        let id = program.attach_with_options(
            interface,
            attach_type,
            TcAttachOptions::TcxOrder(order),
        )?;
        Ok(program.take_link(id)?.try_into()?)
    }
}

fn load_programs(object: &mut Ebpf) -> Result<(), LoadError> {
    for hook in Hook::ALL {
        let program = hook.program();
        let wrap = |source| LoadError::Program {
            program,
            source: Box::new(source),
        };
        match hook {
            Hook::Xdp => xdp(object).and_then(Xdp::load).map_err(wrap)?,
            Hook::TcIngress | Hook::TcEgress => {
                classifier(object, hook)
                    .and_then(SchedClassifier::load)
                    .map_err(wrap)?;
            }
        }
    }
    Ok(())
}

fn xdp(object: &mut Ebpf) -> Result<&mut Xdp, ProgramError> {
    object
        .program_mut(Hook::Xdp.program())
        .ok_or(ProgramError::NotLoaded)?
        .try_into()
}

fn classifier(object: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier, ProgramError> {
    object
        .program_mut(hook.program())
        .ok_or(ProgramError::NotLoaded)?
        .try_into()
}

fn xdp_refused(interface: &str, source: Cause) -> AttachError {
    let interface = interface.to_owned();
    match errno(source.as_ref()).map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EBUSY | nix::errno::Errno::EEXIST) => {
            AttachError::Taken { interface }
        }
        Some(
            nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::EINVAL | nix::errno::Errno::ERANGE,
        ) => AttachError::Unsupported { interface, source },
        _ => AttachError::Failed {
            program: Hook::Xdp.program(),
            interface,
            source,
        },
    }
}

fn failed(interface: &str, hook: Hook, source: Cause) -> AttachError {
    AttachError::Failed {
        program: hook.program(),
        interface: interface.to_owned(),
        source,
    }
}

/// The system error at the bottom of an error's causes.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(code);
        }
        cause = error.source();
    }
    None
}

fn hint(error: &(dyn std::error::Error + 'static)) -> &'static str {
    match errno(error).map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EPERM | nix::errno::Errno::EACCES) => {
            "; CAP_BPF and CAP_NET_ADMIN are needed"
        }
        _ => "",
    }
}

/// `EACCES` from a program load is the verifier's word, `EPERM` a missing capability. Without `CAP_PERFMON` the verifier
/// allows no arithmetic of packet pointers and registers (6.18 `sanitize_ptr_alu`), which headers of any length need.
fn permission_hint(error: &(dyn std::error::Error + 'static)) -> &'static str {
    match errno(error).map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::EPERM) => "; CAP_BPF and CAP_NET_ADMIN are needed",
        Some(nix::errno::Errno::EACCES) => {
            "; the verifier wants CAP_PERFMON beside CAP_BPF and CAP_NET_ADMIN"
        }
        _ => "",
    }
}
