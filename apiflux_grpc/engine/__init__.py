"""The async shell: tasks, wake-ups, back-pressure. It acts on what the core decides."""
