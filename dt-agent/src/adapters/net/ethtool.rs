//! Interrupt moderation of a device, by the ethtool family of generic netlink (Linux 5.7).

use std::io;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED, NlasIterator};

use super::channel::{Answer, Channel};

/// How long a device may hold back a received packet before it interrupts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moderation {
    /// Microseconds; `None` if the device does not say.
    pub receive_us: Option<u32>,
    /// The device changes it by itself with the load.
    pub adaptive: bool,
}

pub(super) fn moderation(channel: &mut Channel, link: u32) -> io::Result<Moderation> {
    let family = family(channel)?;
    let device = DefaultNla::new(HEADER_DEV_INDEX, link.to_ne_bytes().to_vec());
    let header = DefaultNla::new(COALESCE_HEADER | NLA_F_NESTED, emit(&device));
    let answers = channel.exchange(
        family,
        0,
        &command(MSG_COALESCE_GET, ETHTOOL_VERSION, &header),
    )?;
    let mut moderation = Moderation::default();
    for (kind, value) in answers.iter().flat_map(attributes) {
        match (kind, value.as_slice()) {
            (COALESCE_RX_USECS, value) => {
                moderation.receive_us = value.try_into().ok().map(u32::from_ne_bytes);
            }
            (COALESCE_ADAPTIVE_RX, [value]) => moderation.adaptive = *value != 0,
            _ => {}
        }
    }
    Ok(moderation)
}

/// The number of the family, which the kernel gives out when the module is loaded.
fn family(channel: &mut Channel) -> io::Result<u16> {
    let name = DefaultNla::new(CTRL_FAMILY_NAME, b"ethtool\0".to_vec());
    let answers = channel.exchange(GENL_CTRL, 0, &command(CTRL_GETFAMILY, CTRL_VERSION, &name))?;
    answers
        .iter()
        .flat_map(attributes)
        .find(|(kind, _)| *kind == CTRL_FAMILY_ID)
        .and_then(|(_, value)| value.try_into().ok().map(u16::from_ne_bytes))
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// A generic netlink header (`struct genlmsghdr`) and one attribute.
fn command(command: u8, version: u8, attribute: &DefaultNla) -> Vec<u8> {
    [&[command, version, 0, 0], emit(attribute).as_slice()].concat()
}

fn emit(attribute: &DefaultNla) -> Vec<u8> {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

fn attributes(answer: &Answer) -> Vec<(u16, Vec<u8>)> {
    let after_header = answer.payload.get(GENL_HEADER..).unwrap_or_default();
    NlasIterator::new(after_header)
        .map_while(Result::ok)
        .map(|attribute| (attribute.kind(), attribute.value().to_vec()))
        .collect()
}

// include/uapi/linux/genetlink.h
const GENL_HEADER: usize = 4;
const GENL_CTRL: u16 = 16;
const CTRL_GETFAMILY: u8 = 3;
const CTRL_VERSION: u8 = 2;
const CTRL_FAMILY_ID: u16 = 1;
const CTRL_FAMILY_NAME: u16 = 2;

// include/uapi/linux/ethtool_netlink.h
const ETHTOOL_VERSION: u8 = 1;
const MSG_COALESCE_GET: u8 = 19;
const HEADER_DEV_INDEX: u16 = 1;
const COALESCE_HEADER: u16 = 1;
const COALESCE_RX_USECS: u16 = 2;
const COALESCE_ADAPTIVE_RX: u16 = 11;
