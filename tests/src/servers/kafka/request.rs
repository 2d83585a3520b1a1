//! The smallest question that a broker answers, in bytes: which versions of which requests it knows.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Whether the broker answers a request within 2 s.
pub(super) fn is_answered(address: SocketAddr) -> bool {
    ask(address).is_ok_and(|number| number == CORRELATION)
}

/// Sends `ApiVersions` version 0 and returns the number by which its answer says what it answers.
fn ask(address: SocketAddr) -> std::io::Result<u32> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut request = Vec::new();
    request.extend(API_VERSIONS.to_be_bytes());
    request.extend(0_u16.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    // No name of the client.
    request.extend((-1_i16).to_be_bytes());
    stream.write_all(&(request.len() as u32).to_be_bytes())?;
    stream.write_all(&request)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    let [_, _, _, _, number @ ..] = answer;
    Ok(u32::from_be_bytes(number))
}

const API_VERSIONS: u16 = 18;
const CORRELATION: u32 = 0x6474;
const LIMIT: Duration = Duration::from_secs(2);
