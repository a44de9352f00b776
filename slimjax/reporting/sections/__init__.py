"""What a report shows: a module for each section, from what was measured to parts of the page."""
