"""One page that shows what runs have learned: measured in one pass over the data, drawn section by section."""
