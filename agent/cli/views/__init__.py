"""The mesh's pages as the rows that commands show; asks and prints nothing."""
