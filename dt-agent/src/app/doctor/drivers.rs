//! What drivers ask of native XDP, as read in their sources (Linux 6.12).

/// What is known of a driver and native XDP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Driver {
    /// Largest MTU with which it takes a program that handles fragments.
    pub mtu_limit: Option<u32>,
    /// The largest MTU without fragments, which kernels before 5.18 do not have.
    pub linear_mtu_limit: u32,
    /// What else it asks for, and how to see whether it has that.
    pub demands: Option<(&'static str, &'static str)>,
    /// Kernel that first had it.
    pub since: (u32, u32),
}

/// How far a driver, or kind of link, is known to run XDP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Support {
    /// It does, within limits.
    Native(Driver),
    /// It has no native XDP.
    Never,
    /// Not known here; only a try tells.
    Unknown,
}

/// What is known of this driver.
pub(super) fn support(driver: &str) -> Support {
    let known = match driver {
        "mlx5_core" => PLAIN.demanding("LRO and hardware GRO off", "ethtool -k shows them"),
        "ena" => PLAIN.limited(3_498).demanding(
            "at most half of the channels in use",
            "ethtool -l shows them",
        ),
        "gve" => PLAIN.limited(2_048).demanding(
            "GQI-QPL queues, LRO off, at most half of them in use",
            "ethtool -l and -k show them",
        ),
        "virtio_net" => PLAIN.demanding(
            "guest offloads that can be switched off, and spare queues",
            "ethtool -k and -l show them",
        ),
        "bond" => Driver {
            since: (5, 15),
            ..PLAIN.demanding(
                "mode balance-rr, active-backup, 802.3ad or balance-xor, and ports that have it",
                "ip -d link shows the mode",
            )
        },
        "veth" => PLAIN.demanding(
            "a program at the other end, too, or replies are lost",
            "nothing to do: without one the agent falls back to tc",
        ),
        // Said of no others in the sources but that they do.
        "ice" | "i40e" | "ixgbe" | "ixgbevf" | "igc" | "igb" | "bnxt_en" | "mlx4_en" | "nfp"
        | "tun" | "hv_netvsc" | "mana" | "qede" | "sfc" | "mvneta" | "mvpp2" | "stmmac"
        | "fsl_dpaa2_eth" | "fsl_enetc" | "atlantic" | "thunder-nic" | "vif" | "vmxnet3"
        | "cpsw" | "tsnep" => PLAIN,
        "vlan" | "bridge" | "macvlan" | "macvtap" | "ipvlan" | "vxlan" | "geneve" | "wireguard"
        | "dummy" | "ifb" | "netkit" | "gre" | "gretap" | "ip6gre" | "ip6gretap" | "ipip"
        | "sit" | "vti" | "xfrm" | "team" | "vrf" | "macsec" | "ip6tnl" => return Support::Never,
        _ => return Support::Unknown,
    };
    Support::Native(known)
}

/// Whether packets of local origin may arrive with a checksum that nobody finished (`CHECKSUM_PARTIAL`).
pub(super) fn has_partial_checksums(driver: Option<&str>) -> bool {
    matches!(driver, Some("veth" | "tun" | "virtio_net" | "netkit"))
}

const PLAIN: Driver = Driver {
    mtu_limit: None,
    linear_mtu_limit: 3_050,
    demands: None,
    since: (5, 9),
};

impl Driver {
    const fn limited(self, mtu: u32) -> Self {
        Self {
            mtu_limit: Some(mtu),
            linear_mtu_limit: mtu,
            ..self
        }
    }

    const fn demanding(self, demands: &'static str, advice: &'static str) -> Self {
        Self {
            demands: Some((demands, advice)),
            ..self
        }
    }
}
