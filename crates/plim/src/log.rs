//! What the program says about itself while it serves, on standard error; `RUST_LOG` chooses.

/// Starts telling. Warnings and errors only, unless `RUST_LOG` says otherwise.
pub fn start() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true).init();
}
