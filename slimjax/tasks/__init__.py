"""What can be trained. A task is an object with the protocol of `slimjax.tasks.task.Task`."""
