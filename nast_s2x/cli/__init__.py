"""The console command ``nast-s2x``: one module per subcommand, imported when it is run."""
