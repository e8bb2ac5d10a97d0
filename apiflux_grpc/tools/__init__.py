"""What the commands do: everything behind `apiflux stress`, `judge`, `plan` and their like."""
