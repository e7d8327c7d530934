"""Generated clips whose motion no single frame gives away: the data of `vtr-train demo-data`."""
