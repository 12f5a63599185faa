//! `models`: what can be simulated and how well it is known.

use nvidia_ml::models::{self, Model};

pub(crate) fn list(long: bool) {
    for model in models::all() {
        println!("{:14} {}", model.alias, model.product);
        if long {
            details(model);
        }
        for line in &model.inferred {
            println!("               inferred: {line}");
        }
    }
}

fn details(model: &Model) {
    println!("               source: {}", model.source);
    for note in &model.notes {
        println!("               note: {note}");
    }
    for p in &model.profiles {
        println!(
            "               id {:2} {:15} {} slices, {:6} MiB, {:3} SM, at most {}, size {:2} at {:?}",
            p.id, p.name, p.slices, p.memory_mib, p.sm, p.max, p.units, p.starts
        );
    }
}
