from ztunnel.compiled import prefer

prefer(__path__)
