//! What others may do in ZooKeeper, and what comes of what they write there.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use dt_tests::servers::{Place, zookeeper};
use dt_tests::wait::unix_now_ns;
use dt_tests::{Lab, SERVERS, agent, skip_unless_equipped, skip_unless_served};
use prost::Message as _;
use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::{MEMBERS, Node, SECOND, STOP, in_zookeeper, lab, launch, node_of, show, verdict};

#[test]
fn strangers_change_nothing_and_what_members_write_makes_nobody_a_target() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(3)?;
    let zookeeper = zookeeper::Options::given()?.start(&Place::on(&lab, SERVERS))?;
    let server = zookeeper.address();
    let servers = server.to_string();
    let auth_file = lab.dir().join("auth");
    std::fs::write(&auth_file, format!("{MESH_USER}\n"))?;
    let secret = auth_file.display().to_string();
    let start = |host: &str| {
        let launch = launch(&lab, host, &servers)?
            .setting("DT_ZOOKEEPER_AUTH_FILE", &secret)
            .setting("DT_ZOOKEEPER_SESSION", "2s");
        Node::of(&launch, host, host)
    };
    let mut mesh = [start("n1")?, start("n2")?];
    let began = mesh[0].diary.wait_probed("n2", 0)?;

    show(refused_to_strangers(&lab, server));
    show(refused_to_members(&lab, server));
    show(without_credentials(&lab, &servers));
    show(second_of_a_name(&lab, &servers, &secret));
    show(records(&lab, server, &mut mesh[0]));
    mesh[0].diary.check_probing("n2", began)?;
    show(stop_key(&lab, server, &mut mesh));
    Ok(())
}

#[test]
fn credentials_are_refused_where_everybody_may_change_the_mesh() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let lab = lab(2)?;
    let zookeeper = zookeeper::Options::given()?.start(&Place::on(&lab, SERVERS))?;
    let server = zookeeper.address();
    in_zookeeper(&lab, server, None, async |client| {
        let open = CreateMode::Persistent.with_acls(Acls::anyone_all());
        Ok(client.mkdir(MEMBERS, &open).await?)
    })?;
    let auth_file = lab.dir().join("auth");
    std::fs::write(&auth_file, MESH_USER)?;
    let mut agent = launch(&lab, "n1", &server.to_string())?
        .setting("DT_ZOOKEEPER_AUTH_FILE", auth_file.display().to_string())
        .start("n1")?;
    ensure!(!agent.process.wait(agent::LIMIT)?.success());
    let output = agent.process.output()?;
    ensure!(
        output.contains("setAcl /distributed-trace world:anyone:r,digest:mesh:"),
        "{output}"
    );
    ensure!(!output.contains(MESH_PASSWORD), "the password is shown");
    verdict(
        "an existing root that is open to all is refused when credentials are given, with the line to type",
        "ended with an error that names setAcl and the root",
    );
    Ok(())
}

/// Tries everything that changes something; each has to be refused.
async fn try_all(client: &Client, node: &str) -> Result<()> {
    let tried = [
        ("set", client.set_data(node, b"x", None).await.map(drop)),
        ("delete", client.delete(node, None).await),
        ("delete all", client.delete(MEMBERS, None).await),
        (
            "set the directory",
            client.set_data(MEMBERS, b"x", None).await.map(drop),
        ),
        (
            "open the node",
            client
                .set_acl(node, &Acls::anyone_all(), None)
                .await
                .map(drop),
        ),
        (
            "open the directory",
            client
                .set_acl(MEMBERS, &Acls::anyone_all(), None)
                .await
                .map(drop),
        ),
    ];
    for (what, result) in tried {
        // A directory with members is not empty, whoever asks.
        ensure!(
            matches!(result, Err(Error::NoAuth | Error::NotEmpty)),
            "{what}: {result:?}"
        );
    }
    Ok(())
}

fn refused_to_strangers(lab: &Lab, server: SocketAddr) -> Result<()> {
    let node = node_of(lab, server, "n2")?;
    in_zookeeper(lab, server, None, async |client| {
        try_all(&client, &node).await?;
        let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        for path in [format!("{MEMBERS}/forged:0"), STOP.to_owned()] {
            let created = client.create(&path, b"", &options).await;
            ensure!(matches!(created, Err(Error::NoAuth)), "{path} was created");
        }
        ensure!(!client.get_data(&node).await?.0.is_empty(), "it is read");
        Ok(())
    })?;
    verdict(
        "a stranger can read and neither create, set, delete nor open anything",
        "each of 8 attempts refused by ZooKeeper",
    );
    Ok(())
}

fn refused_to_members(lab: &Lab, server: SocketAddr) -> Result<()> {
    let node = node_of(lab, server, "n2")?;
    in_zookeeper(lab, server, Some(MESH_USER), async |client| {
        try_all(&client, &node).await
    })?;
    verdict(
        "a member cannot set, delete or open another one's node",
        "each of 6 attempts refused by ZooKeeper",
    );
    Ok(())
}

fn without_credentials(lab: &Lab, servers: &str) -> Result<()> {
    let mut agent = launch(lab, "n3", servers)?.start("n3-without-credentials")?;
    // It says so as soon as it wants to be a member.
    let status = agent.process.wait(agent::LIMIT)?;
    ensure!(!status.success());
    let output = agent.process.output()?;
    ensure!(output.contains("--zookeeper-auth-file"), "{output}");
    Ok(())
}

fn second_of_a_name(lab: &Lab, servers: &str, secret: &str) -> Result<()> {
    let mut agent = launch(lab, "n3", servers)?
        .setting("DT_NODE", "n2")
        .setting("DT_ZOOKEEPER_AUTH_FILE", secret)
        .start("n3-as-n2")?;
    ensure!(!agent.process.wait(agent::LIMIT)?.success());
    let output = agent.process.output()?;
    ensure!(output.contains("is called n2 already"), "{output}");
    verdict(
        "a second host of one node name says so and ends",
        "ended with an error that names the other one",
    );
    Ok(())
}

/// What an agent's node holds, written anew from the schema.
#[derive(Clone, PartialEq, prost::Message)]
struct MemberRecord {
    #[prost(uint32, tag = "1")]
    schema_version: u32,
    #[prost(string, tag = "2")]
    node: String,
    #[prost(bytes, tag = "3")]
    identity: Vec<u8>,
    #[prost(bytes, repeated, tag = "4")]
    addresses: Vec<Vec<u8>>,
    #[prost(uint32, tag = "5")]
    port: u32,
    #[prost(int32, tag = "7")]
    state: i32,
}

fn record(node: &str, address: IpAddr) -> Vec<u8> {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let record = MemberRecord {
        schema_version: 1,
        node: node.to_owned(),
        identity: vec![9; 16],
        addresses: vec![octets],
        port: 862,
        state: 1,
    };
    record.encode_to_vec()
}

/// Members' nodes that make no sense or harm: each is named, none is probed.
fn records(lab: &Lab, server: SocketAddr, watcher: &mut Node) -> Result<()> {
    let own = lab.host("n1").ipv4().into();
    let others = lab.host("n2").ipv4().into();
    let bad = [
        ("garbage", vec![0xff; 40], "it is not a record"),
        ("large", vec![0; 100_000], "bytes, more than 4096"),
        (
            "public",
            record("public", [192, 0, 2, 7].into()),
            "192.0.2.7",
        ),
        ("claims-own", record("claims-own", own), "claims-own"),
        (
            "claims-other",
            record("claims-other", others),
            "claims-other",
        ),
    ];
    let written = unix_now_ns()?;
    in_zookeeper(lab, server, Some(MESH_USER), async |client| {
        let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        for (name, bytes, _) in &bad {
            let path = format!("{MEMBERS}/{name}:0");
            client.create(&path, bytes, &options).await?;
        }
        // The nodes go with the session, so it lasts until all were named.
        for (_, _, words) in &bad {
            watcher.agent.wait_until_said(words)?;
        }
        watcher.diary.wait_past(written + 3 * SECOND)?;
        Ok(())
    })?;
    for (name, _, _) in &bad {
        let sent = watcher.diary.first_sent(name, 0);
        ensure!(sent.is_none(), "{name} was probed");
    }
    verdict(
        "broken, too large and hostile records (a foreign target, our address, another's address) are named and ignored",
        "each of 5 named in the log, none probed",
    );
    Ok(())
}

fn stop_key(lab: &Lab, server: SocketAddr, mesh: &mut [Node; 2]) -> Result<()> {
    in_zookeeper(lab, server, Some(MESH_USER), async |client| {
        let options = CreateMode::Persistent.with_acls(Acls::anyone_read());
        client.create(STOP, b"", &options).await?;
        Ok(())
    })?;
    let stopped = unix_now_ns()?;
    for (node, peer) in mesh.iter_mut().zip(["n2", "n1"]) {
        node.diary.wait_past(stopped + 3 * SECOND)?;
        let last = node.diary.last_sent(peer).context("it was probed")?;
        ensure!(last < stopped + 2 * SECOND, "probed on after the stop");
    }
    in_zookeeper(lab, server, Some(MESH_USER), async |client| {
        Ok(client.delete(STOP, None).await?)
    })?;
    let released = unix_now_ns()?;
    for (node, peer) in mesh.iter_mut().zip(["n2", "n1"]) {
        node.diary.wait_probed(peer, released)?;
    }
    verdict(
        "the stop key, which members may make and delete, stops the mesh within 2 s and lets it go on",
        "no probe later, and all pairs probed again",
    );
    Ok(())
}

const MESH_USER: &str = "mesh:not-for-strangers";
const MESH_PASSWORD: &str = "not-for-strangers";
