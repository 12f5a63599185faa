//! Reads configurations of nvidia-mig-parted (`version: v1`), since admins have those. Of each entry the devices and the
//! instances count; what migshare would not do (switch MIG mode off, choose by PCI id) is refused by name.

use super::target;
use anyhow::{Context, bail};
use migshare_proto::admin::{CountWish, GpuTarget, Wish};
use migshare_proto::status::Status;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    #[serde(rename = "mig-configs")]
    configs: BTreeMap<String, Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    device_filter: Option<serde_json::Value>,
    devices: serde_json::Value,
    mig_enabled: bool,
    #[serde(default)]
    mig_devices: BTreeMap<String, u32>,
}

/// The targets in a file's configuration of this name; the name may be left out where there is only one.
pub(super) fn targets(text: &str, name: Option<&str>, status: &Status) -> anyhow::Result<Vec<GpuTarget>> {
    let file: File = serde_norway::from_str(text).context("not a mig-parted configuration")?;
    if file.version != "v1" {
        bail!("version \"{}\" is not known, only v1", file.version);
    }
    let names = || file.configs.keys().cloned().collect::<Vec<_>>().join(", ");
    let entries = match name {
        Some(name) => {
            file.configs.get(name).with_context(|| format!("no config {name}; there are {}", names()))?
        }
        None if file.configs.len() == 1 => file.configs.values().next().context("no config")?,
        None => bail!("name one of its configs behind a '#': {}", names()),
    };
    let mut targets: BTreeMap<u32, GpuTarget> = BTreeMap::new();
    for entry in entries {
        for (index, target) in entry.targets(status)? {
            targets.insert(index, target);
        }
    }
    Ok(targets.into_values().collect())
}

impl Entry {
    fn targets(&self, status: &Status) -> anyhow::Result<Vec<(u32, GpuTarget)>> {
        if self.device_filter.is_some() {
            bail!("device-filter chooses by PCI id, which is not supported: name devices by index");
        }
        if !self.mig_enabled {
            bail!("mig-enabled: false is not supported: migshare never switches MIG mode off");
        }
        let counts =
            self.mig_devices.iter().map(|(profile, n)| CountWish { profile: profile.clone(), count: *n });
        let wish = Wish::Counts(counts.collect());
        let chosen = self.indices(status)?;
        let gpus = target::all(status).filter(|g| chosen.contains(&g.index));
        Ok(gpus.map(|g| (g.index, GpuTarget { gpu: g.uuid.clone(), layout: wish.clone() })).collect())
    }

    /// `all` or a list of indices.
    fn indices(&self, status: &Status) -> anyhow::Result<Vec<u32>> {
        let all: Vec<u32> = target::all(status).map(|g| g.index).collect();
        if self.devices.as_str() == Some("all") {
            return Ok(all);
        }
        let list: Vec<u32> =
            serde_json::from_value(self.devices.clone()).context("devices is neither \"all\" nor a list")?;
        match list.iter().find(|index| !all.contains(index)) {
            Some(index) => bail!("no gpu {index} on this node"),
            None => Ok(list),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migshare_proto::{GpuUuid, Reply};

    /// As in nvidia-mig-parted's examples/config.yaml.
    const CONFIG: &str = "version: v1
mig-configs:
  all-disabled:
    - devices: all
      mig-enabled: false
  all-1g.10gb:
    - devices: all
      mig-enabled: true
      mig-devices:
        \"1g.10gb\": 7
  custom-config:
    - devices: [0]
      mig-enabled: true
      mig-devices:
        1g.10gb: 2
        2g.20gb: 1
        3g.40gb: 1
  filtered:
    - device-filter: [\"0x233010DE\"]
      devices: all
      mig-enabled: true
      mig-devices: {}
";

    fn status() -> Status {
        let text = include_str!("../../proto/tests/golden/reply/status.json");
        match serde_json::from_str(text).unwrap() {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_named_config_becomes_counts() {
        let got = targets(CONFIG, Some("custom-config"), &status()).unwrap();
        let count = |profile: &str, count| CountWish { profile: profile.to_owned(), count };
        let wish = Wish::Counts(vec![count("1g.10gb", 2), count("2g.20gb", 1), count("3g.40gb", 1)]);
        let gpu = GpuUuid::new("GPU-4a1b1a7e-5d5a-5d70-b5b9-2f7f0c2a1d11");
        assert_eq!(got, [GpuTarget { gpu, layout: wish }]);
        assert_eq!(targets(CONFIG, Some("all-1g.10gb"), &status()).unwrap().len(), 1);
    }

    #[test]
    fn what_migshare_would_not_do_is_refused_by_name() {
        let refusal = |name: Option<&str>| format!("{:#}", targets(CONFIG, name, &status()).unwrap_err());
        assert!(refusal(Some("all-disabled")).contains("never switches MIG mode off"));
        assert!(refusal(Some("filtered")).contains("device-filter"));
        assert!(refusal(Some("nonesuch")).contains("there are all-1g.10gb, all-disabled"));
        assert!(refusal(None).contains("name one of its configs"));
        assert!(targets("version: v2\nmig-configs: {}\n", None, &status()).is_err());
        assert!(targets("nonsense", None, &status()).is_err());
    }
}
