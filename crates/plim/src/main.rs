//! `plim`: the command line of Plimsoll. The only room that prints.

mod connector;
mod control;
mod data;
mod kubeconfig;
mod log;
mod pki;
mod plan;
mod progress;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use data::Data;

/// A Kubernetes-compatible control plane, and what machines cost, in one program.
#[derive(Parser)]
#[command(name = "plim", version, arg_required_else_help = true)]
struct Cli {
    /// The cluster's state folder.
    #[arg(long, global = true, default_value = data::DEFAULT, env = "PLIM_DATA", value_name = "DIR")]
    data: std::path::PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the control plane: API server, store and scheduler.
    #[command(after_help = serve::EXAMPLES)]
    Server(serve::Serve),
    /// Stop the control plane.
    #[command(after_help = "Example:\n  plim down")]
    Down,
    /// Print the administrator's kubeconfig.
    #[command(after_help = "Example:\n  plim kubeconfig > ~/.kube/config && kubectl get namespaces")]
    Kubeconfig,
    /// What a list of VMs costs, and which machines would carry the same load.
    #[command(after_help = plan::EXAMPLES)]
    Plan(plan::Plan),
    /// Print a completion script.
    #[command(after_help = "Example:\n  source <(plim completion bash)")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let data = Data::at(cli.data);
    let result = match cli.command {
        Command::Server(serve) => serve.run(&data),
        Command::Down => serve::down(&data),
        Command::Kubeconfig => kubeconfig::print(&data),
        Command::Plan(plan) => plan.run(),
        Command::Completion { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "plim", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
