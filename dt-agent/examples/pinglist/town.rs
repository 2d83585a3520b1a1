//! The mesh that is measured.

use dt_agent::engine::pinglist::Node;

/// Zones of 25 racks of 40 servers; what is left over stands in a smaller zone.
pub struct Town {
    servers: Vec<Server>,
}

/// One server and where it stands.
pub struct Server {
    pub name: String,
    pub zone: String,
    pub rack: String,
}

impl Town {
    pub fn of(nodes: usize) -> Self {
        let server = |index: usize| Server {
            name: format!("server-{index:05}.example.net"),
            zone: format!("zone-{}", index / (RACK * RACKS)),
            rack: format!("rack-{}", index / RACK),
        };
        Self {
            servers: (0..nodes).map(server).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.servers.len()
    }

    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub fn racks(&self) -> usize {
        self.servers.len().div_ceil(RACK)
    }

    pub fn zones(&self) -> usize {
        self.servers.len().div_ceil(RACK * RACKS)
    }

    pub fn node(&self, index: usize) -> Node<'_> {
        let server = &self.servers[index];
        Node {
            name: &server.name,
            zone: Some(&server.zone),
            rack: Some(&server.rack),
            stands: true,
        }
    }

    /// Indices of all but this one, and but one who left.
    pub fn indices(&self, own: usize, gone: Option<usize>) -> Vec<usize> {
        (0..self.servers.len())
            .filter(|index| *index != own && Some(*index) != gone)
            .collect()
    }

    pub fn others(&self, own: usize, gone: Option<usize>) -> Vec<Node<'_>> {
        let indices = self.indices(own, gone);
        indices.into_iter().map(|index| self.node(index)).collect()
    }
}

/// Servers of a rack.
pub const RACK: usize = 40;
/// Racks of a zone.
pub const RACKS: usize = 25;
