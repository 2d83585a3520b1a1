//! ZooKeeper by TLS and SASL: a mesh that works, and what an agent says when something about it is wrong.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use dt_tests::servers::{Place, zookeeper};
use dt_tests::{Lab, Launch, SERVERS, skip_unless_equipped, skip_unless_served};

use super::{MEMBERS, Node, in_zookeeper, lab, launch, show, verdict};

#[test]
fn agents_find_each_other_by_tls_and_sasl_and_say_what_is_wrong_with_either() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(3)?;
    let place = Place::on(&lab, SERVERS);
    let files = Files::make(&lab)?;
    // In a namespace of its own nobody else has it.
    let port = std::net::SocketAddr::from((lab.host(SERVERS).ipv4(), 2281));
    let zookeeper = zookeeper::Options::given()?
        .line("serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory")
        .line(format!("secureClientPort={}", port.port()))
        .line(format!("secureClientPortAddress={}", port.ip()))
        .line(format!(
            "ssl.keyStore.location={}",
            files.path("server.pem").display()
        ))
        .line(format!(
            "ssl.trustStore.location={}",
            files.path("ca.pem").display()
        ))
        .line("ssl.clientAuth=need")
        .line("authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider")
        .flag(format!(
            "-Djava.security.auth.login.config={}",
            files.path("jaas.conf").display()
        ))
        .start(&place)?;
    let servers = port.to_string();

    let start = |host: &str| Node::of(&files.launch(&lab, host, &servers)?, host, host);
    let mut mesh = [start("n1")?, start("n2")?];
    mesh[0].diary.wait_probed("n2", 0)?;
    mesh[1].diary.wait_probed("n1", 0)?;
    show(closed_to_others(&lab, zookeeper.address()));
    verdict(
        "members by TLS with certificates on both sides and a SASL user: they find each other, and nobody else may join",
        "both probe each other, the directories belong to sasl:mesh",
    );
    show(wrong(
        &lab,
        &files,
        &servers,
        zookeeper.address().to_string(),
    ));
    for node in &mut mesh {
        ensure!(node.agent.stop()?.success());
    }
    Ok(())
}

fn closed_to_others(lab: &Lab, server: std::net::SocketAddr) -> Result<()> {
    in_zookeeper(lab, server, None, async |client| {
        let (acls, _) = client.get_acl(MEMBERS).await?;
        let of_mesh = acls
            .iter()
            .any(|acl| acl.scheme() == "sasl" && acl.id() == "mesh");
        ensure!(of_mesh, "{acls:?}");
        let forged = format!("{MEMBERS}/forged:0");
        let options =
            zookeeper_client::CreateMode::Ephemeral.with_acls(zookeeper_client::Acls::anyone_all());
        let created = client.create(&forged, b"", &options).await;
        ensure!(matches!(created, Err(zookeeper_client::Error::NoAuth)));
        Ok(())
    })
}

/// Each mistake alone: one line that names it, and the agent goes on trying.
fn wrong(lab: &Lab, files: &Files, servers: &str, plain: String) -> Result<()> {
    let right = || files.launch(lab, "n3", servers);
    let strange = files.path("strange-ca.pem").display().to_string();
    let word = files.path("wrong-sasl").display().to_string();
    let cases = [
        (
            "another authority than the server's",
            right()?.setting("DT_ZOOKEEPER_TLS_CA", strange),
            "UnknownIssuer",
        ),
        (
            "TLS with a port that has none",
            right()?.setting("ZOOKEEPER_SERVERS", plain),
            "TLS with",
        ),
        (
            "no certificate where the server wants one",
            files.launch_without_certificate(lab, "n3", servers)?,
            "TLS with",
        ),
        (
            "a wrong password",
            right()?.setting("DT_ZOOKEEPER_SASL_FILE", word),
            "--zookeeper-sasl-file",
        ),
    ];
    for (number, (what, launch, said)) in cases.into_iter().enumerate() {
        let mut agent = launch.start(&format!("n3-wrong-{number}"))?;
        let line = agent.wait_until_said("no connection")?;
        ensure!(line.contains(said), "{what}: {line}");
        // It tries again at least twice more in this time, and says nothing new.
        let ended = agent.process.wait(std::time::Duration::from_secs(4));
        ensure!(ended.is_err(), "{what}: the agent ended: {ended:?}");
        let lines = agent.process.output()?.matches("no connection").count();
        ensure!(lines == 1, "{what}: {lines} lines");
        agent.kill()?;
        let cause = line.split("no connection: ").nth(1).unwrap_or(&line);
        verdict(
            &format!("{what}: one clear line, and the agent goes on trying"),
            &format!("{lines} line in 4 s and more: \"{cause}\""),
        );
    }
    Ok(())
}

/// Keys, certificates and passwords of one test.
struct Files {
    dir: PathBuf,
}

impl Files {
    fn make(lab: &Lab) -> Result<Self> {
        let files = Self {
            dir: lab.dir().join("secrets"),
        };
        fs::create_dir_all(&files.dir)?;
        files.authority("ca")?;
        files.authority("strange-ca")?;
        let address = lab.host(SERVERS).ipv4();
        files.certificate("server", &format!("subjectAltName=IP:{address}"))?;
        files.certificate("agent", "subjectAltName=DNS:agent")?;
        // As ZooKeeper wants a key store of type PEM: the key, then the chain.
        let key = fs::read_to_string(files.path("server.key"))?;
        let cert = fs::read_to_string(files.path("server.crt"))?;
        fs::write(files.path("server.pem"), key + &cert)?;
        fs::write(files.path("sasl"), "mesh:secret\n")?;
        fs::write(files.path("wrong-sasl"), "mesh:guess\n")?;
        fs::write(
            files.path("jaas.conf"),
            "Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_mesh=\"secret\"; };\n",
        )?;
        Ok(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn authority(&self, name: &str) -> Result<()> {
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
        ])
    }

    fn certificate(&self, name: &str, extension: &str) -> Result<()> {
        let (key, request, cert) = (
            format!("{name}.key"),
            format!("{name}.csr"),
            format!("{name}.crt"),
        );
        self.openssl(&[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-addext",
            extension,
            "-keyout",
            &key,
            "-out",
            &request,
        ])?;
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-copy_extensions",
            "copy",
            "-out",
            &cert,
        ])
    }

    fn openssl(&self, words: &[&str]) -> Result<()> {
        let output = Command::new("openssl")
            .args(words)
            .current_dir(&self.dir)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl {words:?}: {said}");
        Ok(())
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn launch<'a>(&self, lab: &'a Lab, host: &str, servers: &str) -> Result<Launch<'a>> {
        Ok(self
            .launch_without_certificate(lab, host, servers)?
            .setting("DT_ZOOKEEPER_TLS_CERT", self.text("agent.crt"))
            .setting("DT_ZOOKEEPER_TLS_KEY", self.text("agent.key")))
    }

    fn launch_without_certificate<'a>(
        &self,
        lab: &'a Lab,
        host: &str,
        servers: &str,
    ) -> Result<Launch<'a>> {
        Ok(launch(lab, host, servers)?
            .setting("DT_ZOOKEEPER_SASL_FILE", self.text("sasl"))
            .setting("DT_ZOOKEEPER_TLS_CA", self.text("ca.pem")))
    }
}
