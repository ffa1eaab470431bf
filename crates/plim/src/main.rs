//! `plim`: the command line of Plimsoll. The only room that prints.

mod client;
mod control;
mod data;
mod kubeconfig;
mod pki;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use data::Data;

/// Containers, a Kubernetes-compatible cluster and what it costs, in one program.
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
    /// Start a cluster on this machine.
    #[command(after_help = up::EXAMPLES)]
    Up(up::Up),
    /// Stop the cluster.
    #[command(after_help = "Example:\n  plim down")]
    Down,
    /// Print the administrator's kubeconfig.
    #[command(after_help = "Example:\n  plim kubeconfig > ~/.kube/config && kubectl get nodes")]
    Kubeconfig,
    /// Print a completion script.
    #[command(after_help = "Example:\n  source <(plim completion bash)")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    // The holder of containers is this same program: it has to begin before any thread exists.
    if let Some(code) = up::holder() {
        return code;
    }
    let cli = Cli::parse();
    let data = Data::at(cli.data);
    let result = match cli.command {
        Command::Up(up) => up.run(&data),
        Command::Down => up::down(&data),
        Command::Kubeconfig => client::print_kubeconfig(&data),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut <Cli as clap::CommandFactory>::command(), "plim", &mut std::io::stdout());
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
