//! Builds an image and prints what happens, with the time of each step.
//!
//! `cargo run -p builder --example build -- STORE CONTEXT TAG [--secret id=NAME,src=FILE]… [--build-env NAME]…`
//!
//! The holder's program must be there: `cargo build -p runtime`.

use std::{error::Error, path::Path, sync::Arc, time::Duration};

use builder::{Build, Host, Outcome, Progress, Secret, Step};
use runtime::oneshot::Holder;

struct Print;

impl Progress for Print {
    fn start(&self, _: &Step) {}

    fn output(&self, step: &Step, line: &str) {
        println!("{:>8} | {line}", step.stage);
    }

    fn done(&self, step: &Step, outcome: Outcome, took: Duration) {
        let outcome = match outcome {
            Outcome::Done => format!("{:.1} s", took.as_secs_f64()),
            Outcome::Cached => "cached".into(),
            Outcome::Failed => "failed".into(),
        };
        println!("{outcome:>8} {step}");
    }

    fn warning(&self, text: &str) {
        println!("warning: {text}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(store), Some(context), Some(tag)) = (args.next(), args.next(), args.next()) else {
        return Err("give a STORE, a CONTEXT and a TAG".into());
    };
    let images = images::Images::open(&store)?;
    let mut build = Build::new(context, Path::new(&store).join("caches"));
    build.tags = vec![tag];
    build.host = Host::read(std::env::vars());
    while let (Some(flag), Some(value)) = (args.next(), args.next()) {
        match flag.as_str() {
            "--secret" => build.secrets.push(Secret::parse(&value)?),
            "--build-env" => build.build_env.extend(std::env::var(&value).map(|v| (value, v))),
            "--build-arg" => {
                let (name, value) = value.split_once('=').ok_or("--build-arg NAME=VALUE")?;
                build.args.insert(name.into(), value.into());
            }
            "--target" => build.target = Some(value),
            other => return Err(format!("{other} is not known").into()),
        }
    }
    let program = std::env::current_exe()?.with_file_name("../plim-holder");
    let dir = tempfile::tempdir()?;
    let holder = Arc::new(Holder::private(&[program.into()], dir.path()).await?);
    let began = std::time::Instant::now();
    match builder::build(&build, &images, holder, Arc::new(Print), Default::default()).await {
        Ok(image) => {
            println!("{} {} bytes, {:.2} s", image.id, image.size, began.elapsed().as_secs_f64());
            Ok(())
        }
        Err(error) => {
            println!("{error}");
            Err("no image".into())
        }
    }
}
