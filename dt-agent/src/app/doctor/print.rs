//! A diagnosis for people.

use std::io::{self, Write};

use super::judge::{Diagnosis, Finding, InterfaceDiagnosis, Level};

/// Writes it as text: interfaces first, because that is what was asked.
pub(super) fn text(diagnosis: &Diagnosis, out: &mut impl Write) -> io::Result<()> {
    for interface in &diagnosis.interfaces {
        one_interface(interface, out)?;
    }
    writeln!(out, "this host")?;
    findings(&diagnosis.host, out)?;
    let verdict = if diagnosis.works {
        "xdp or tc works here."
    } else {
        "Neither xdp nor tc works here; mode socket measures with more noise."
    };
    writeln!(out, "\n{verdict}")
}

fn one_interface(interface: &InterfaceDiagnosis, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}: {}", interface.name, interface.mode)?;
    for why in &interface.why {
        line(out, ' ', "why", why)?;
    }
    let driver = interface.driver.as_deref().unwrap_or("not told");
    line(out, ' ', "driver", driver)?;
    line(out, ' ', "MTU", &interface.mtu.to_string())?;
    let holder = interface
        .xdp_program
        .map(|id| format!("held by program {id}"));
    line(out, ' ', "XDP slot", holder.as_deref().unwrap_or("free"))?;
    line(out, ' ', "checksum", interface.checksum)?;
    findings(&interface.findings, out)?;
    writeln!(out)
}

fn findings(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    for finding in findings {
        let sign = match finding.level {
            Level::Good => ' ',
            Level::Note => '-',
            Level::Problem => '!',
        };
        line(out, sign, finding.subject, &finding.says)?;
        if let Some(advice) = &finding.advice {
            line(out, ' ', "", &format!("> {advice}"))?;
        }
    }
    Ok(())
}

fn line(out: &mut impl Write, sign: char, name: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{sign} {name:<21}{text}")
}
