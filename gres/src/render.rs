//! The text that belongs into the three files.

use crate::inventory::Inventory;
use serde::Serialize;
use std::path::Path;

/// Where the agent listens when nobody says otherwise; then plugstack.conf need not say it either.
pub const SOCKET: &str = "/run/migshare/agent.sock";
/// File name of the plugin; Slurm looks a name without a path up in its PluginDir.
pub const PLUGIN: &str = "spank_migshare.so";

/// Where `render` says that the price table is; any path will do that plugstack.conf names.
pub const PRICES: &str = "/etc/slurm/migshare-prices";

/// Text per file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Text {
    /// For gres.conf.
    pub gres: String,
    /// For slurm.conf.
    pub slurm: String,
    /// For plugstack.conf.
    pub plugstack: String,
    /// For the price table: the line of this node, beside those of the others.
    pub prices: String,
}

/// The text for one node.
pub fn text(inventory: &Inventory, plugin: &str, socket: &Path) -> Text {
    let Inventory { node, leaves, .. } = inventory;
    Text {
        gres: format!(
            "# {leaves} leaves. Count only: with File= Slurm would choose the devices, and the agent does.\n\
             NodeName={node} Name=mig Count={leaves}\n"
        ),
        slurm: format!(
            "# Add mig to GresTypes, Alloc to PrologFlags and Gres=mig:{leaves} to the node's own line.\n\
             GresTypes=mig\n\
             PrologFlags=Alloc\n\
             PrologEpilogTimeout=60\n\
             NodeName={node} Gres=mig:{leaves}\n"
        ),
        plugstack: format!(
            "# required, not optional: optional would start a job without its leaves when a hook fails.\n\
             required {plugin}{} prices={PRICES}\n",
            if socket == Path::new(SOCKET) { String::new() } else { format!(" socket={}", socket.display()) }
        ),
        prices: format!(
            "# A line of each node, or one of alike nodes with a host list as its name; submit hosts read it.\n{}\n",
            serde_json::to_string(&inventory.prices).unwrap_or_default()
        ),
    }
}

impl Text {
    /// All, each under the name of its file.
    pub fn whole(&self) -> String {
        format!(
            "## gres.conf\n{}\n## slurm.conf\n{}\n## plugstack.conf\n{}\n## {PRICES}\n{}",
            self.gres, self.slurm, self.plugstack, self.prices
        )
    }
}
