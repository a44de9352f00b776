"""One trainer for every task: steps, schedules, switch rules, checkpoints, metric writers and the loop."""
