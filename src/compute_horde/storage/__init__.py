"""The database: engine, migrations, and the bus that wakes those who wait for a row."""
