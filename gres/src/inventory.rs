//! What a node has: the agent's status, from its socket or from a file.

use migshare_proto::message::{Reply, Request, StatusQuery};
use migshare_proto::prices::NodePrices;
use migshare_proto::status::Status;
use migshare_proto::{Client, ClientError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The agent did not answer.
    #[error("no inventory")]
    Agent(#[from] ClientError),
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// The file is not what `migshare status --json` prints.
    #[error("{0} is not the output of migshare status --json")]
    Malformed(PathBuf, #[source] serde_json::Error),
}

/// A node as Slurm has to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Slurm's name of the node.
    pub node: String,
    /// Leaves that Slurm counts.
    pub leaves: u32,
    /// NVML indices of the GPUs that hold them.
    pub gpus: Vec<u32>,
    /// The node's line of the price table.
    pub prices: NodePrices,
}

impl Inventory {
    /// Asks the agent.
    pub fn ask(socket: &Path) -> Result<Inventory, InventoryError> {
        let mut client = Client::connect(socket, concat!("gres ", env!("CARGO_PKG_VERSION")), PATIENCE)?;
        match client.ask(&Request::Status(StatusQuery {}))? {
            Reply::Status(status) => Ok(Inventory::from(*status)),
            other => Err(ClientError::Nonsense(format!("{other:?} to status")).into()),
        }
    }

    /// Reads what `migshare status --json` printed.
    pub fn read(path: &Path) -> Result<Inventory, InventoryError> {
        let text = std::fs::read(path).map_err(|e| InventoryError::Read(path.to_owned(), e))?;
        let status: Status =
            serde_json::from_slice(&text).map_err(|e| InventoryError::Malformed(path.to_owned(), e))?;
        Ok(Inventory::from(status))
    }
}

impl From<Status> for Inventory {
    fn from(status: Status) -> Inventory {
        let gpus = status.gpus.iter().filter(|gpu| gpu.is_in_mig_mode()).map(|gpu| gpu.index).collect();
        let prices = NodePrices::from(&status);
        Inventory { node: status.node, leaves: status.counted, gpus, prices }
    }
}
