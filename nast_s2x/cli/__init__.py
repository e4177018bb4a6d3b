"""The console command ``nast-s2x``: one module per subcommand, imported only when asked for."""
