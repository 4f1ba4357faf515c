"""What is one system's own: clients and commands for it. The core knows none of it; entry points lead here."""
