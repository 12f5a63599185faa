//! Reads configurations of nvidia-mig-parted (`version: v1`), since admins have those. Of each entry the devices and the
//! instances count, for the models of its device filter; what migshare would not do (switch MIG mode off, instances with media
//! engines) is refused by name, where the entry is about a GPU of this node.

use super::target;
use anyhow::{Context, bail};
use migshare_proto::admin::{CountWish, GpuTarget, Wish};
use migshare_proto::status::{GpuStatus, Status};
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
    device_filter: Option<Filter>,
    devices: serde_json::Value,
    mig_enabled: bool,
    #[serde(default)]
    mig_devices: BTreeMap<String, u32>,
}

/// PCI device ids as mig-parted has them, `0x233010DE`: device above vendor.
#[derive(Deserialize)]
#[serde(untagged)]
enum Filter {
    One(PciDevice),
    Any(Vec<PciDevice>),
}

/// In quotes or not: YAML takes the latter for a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum PciDevice {
    Number(u32),
    Text(String),
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
        let gpus = self.gpus(status)?;
        if gpus.is_empty() {
            return Ok(Vec::new());
        }
        if !self.mig_enabled {
            bail!("mig-enabled: false is not supported: migshare never switches MIG mode off");
        }
        if let Some(profile) = self.mig_devices.keys().find(|profile| plain(profile) != profile.as_str()) {
            bail!("{profile} is not supported: migshare makes plain instances, here {}", plain(profile));
        }
        let counts =
            self.mig_devices.iter().map(|(profile, n)| CountWish { profile: profile.clone(), count: *n });
        let wish = Wish::Counts(counts.collect());
        let target = |g: &GpuStatus| GpuTarget { gpu: g.uuid.clone(), layout: wish.clone() };
        Ok(gpus.into_iter().map(|g| (g.index, target(g))).collect())
    }

    /// The GPUs that the entry is about.
    fn gpus<'a>(&self, status: &'a Status) -> anyhow::Result<Vec<&'a GpuStatus>> {
        let chosen = self.indices(status)?;
        let chosen = target::all(status).filter(|g| chosen.contains(&g.index));
        let Some(filter) = &self.device_filter else { return Ok(chosen.collect()) };
        let models = filter.ids()?;
        let mut gpus = Vec::new();
        for gpu in chosen {
            let index = gpu.index;
            let id = gpu.pci_device.with_context(|| {
                format!("device-filter: the agent does not tell the PCI device id of gpu {index}; name devices instead")
            })?;
            if models.contains(&id) {
                gpus.push(gpu);
            }
        }
        Ok(gpus)
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

impl Filter {
    fn ids(&self) -> anyhow::Result<Vec<u32>> {
        let list = match self {
            Filter::One(one) => std::slice::from_ref(one),
            Filter::Any(list) => list,
        };
        list.iter().map(PciDevice::id).collect()
    }
}

impl PciDevice {
    fn id(&self) -> anyhow::Result<u32> {
        let text = match self {
            PciDevice::Number(id) => return Ok(*id),
            PciDevice::Text(text) => text,
        };
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        u32::from_str_radix(digits, 16)
            .with_context(|| format!("device-filter: \"{text}\" is no PCI device id like 0x233010DE"))
    }
}

/// The name of a profile without its attributes.
fn plain(profile: &str) -> &str {
    profile.split(['+', '-']).next().unwrap_or(profile)
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
  all-balanced:
    - device-filter: [\"0x20B010DE\", \"0x20B110DE\"]
      devices: all
      mig-enabled: true
      mig-devices:
        1g.5gb: 2
        2g.10gb: 1
        3g.20gb: 1
    - device-filter: 0x233010DE
      devices: all
      mig-enabled: true
      mig-devices:
        1g.10gb: 2
        2g.20gb: 1
        3g.40gb: 1
  all-1g.10gb.me:
    - devices: all
      mig-enabled: true
      mig-devices:
        1g.10gb+me: 1
  others-off:
    - device-filter: 0x20B010DE
      devices: all
      mig-enabled: false
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
    fn a_device_filter_chooses_by_model() {
        let mut status = status();
        let refused =
            |status: &Status| format!("{:#}", targets(CONFIG, Some("all-balanced"), status).unwrap_err());
        assert!(refused(&status).contains("does not tell the PCI device id"), "an agent before that field");
        status.gpus[0].pci_device = Some(0x2330_10DE);
        let got = targets(CONFIG, Some("all-balanced"), &status).unwrap();
        let Wish::Counts(counts) = &got[0].layout else { panic!("{got:?}") };
        assert_eq!((got.len(), counts[2].profile.as_str()), (1, "3g.40gb"));
        assert_eq!(targets(CONFIG, Some("others-off"), &status).unwrap(), [], "about no GPU of this node");
        let bad = CONFIG.replace("0x20B010DE\n", "H100\n");
        let refusal = targets(&bad, Some("others-off"), &status).unwrap_err();
        assert!(format!("{refusal:#}").contains("no PCI device id"), "{refusal:#}");
    }

    #[test]
    fn what_migshare_would_not_do_is_refused_by_name() {
        let refusal = |name: Option<&str>| format!("{:#}", targets(CONFIG, name, &status()).unwrap_err());
        assert!(refusal(Some("all-disabled")).contains("never switches MIG mode off"));
        assert!(refusal(Some("all-1g.10gb.me")).contains("here 1g.10gb"));
        assert!(refusal(Some("nonesuch")).contains("there are all-1g.10gb, all-1g.10gb.me, all-balanced"));
        assert!(refusal(None).contains("name one of its configs"));
        assert!(targets("version: v2\nmig-configs: {}\n", None, &status()).is_err());
        assert!(targets("nonsense", None, &status()).is_err());
    }
}
