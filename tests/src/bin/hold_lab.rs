//! Makes a lab and holds it until Ctrl-C, to look around in by hand: `hold-lab mesh 3`.

#![forbid(unsafe_code)]

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dt_tests::{Interrupt, Lab, Proc};

fn main() -> Result<()> {
    let interrupt = Interrupt::catch()?;
    let args: Vec<_> = std::env::args().skip(1).collect();
    let lab = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["mesh", count] => Lab::mesh(count.parse().context("how many hosts?")?)?,
        ["bridge", count] => Lab::bridge(count.parse().context("how many hosts?")?)?,
        ["wire"] => Lab::wire()?,
        _ => bail!("usage: hold-lab mesh COUNT | bridge COUNT | wire"),
    };
    for host in lab.hosts() {
        println!(
            "{} {} {}: nsenter --net=/run/netns/{}",
            host.name(),
            host.ipv4(),
            host.ipv6(),
            host.namespace()
        );
    }
    // Something that runs in a host, as in real use; a crash of this program must end it too.
    let idle = Proc::spawn(
        "idle",
        &lab.dir(),
        lab.host("n1").command("sleep").arg("infinity"),
    )?;
    println!("idle {}", idle.pid());
    println!("held; Ctrl-C ends it");
    while !interrupt.arrived() {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
