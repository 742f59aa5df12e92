"""`python -m minibrokerd` is the `minibroker` command."""

from minibrokerd.cli.main import main

if __name__ == "__main__":
    main(prog_name="minibroker")
