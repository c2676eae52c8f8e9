/*
 * spiscan.h
 *		Reads events through the executor, where row security applies.
 */
#ifndef EVENTSRC_SPISCAN_H
#define EVENTSRC_SPISCAN_H

#include "store/store.h"

#include "utils/snapshot.h"
#include "utils/tuplestore.h"

extern Tuplestorestate *es_spi_stream(EsStore *store, text *aggregate_type, text *aggregate_id,
									  int64 from_version, int64 to_version, bool backward,
									  Snapshot snapshot);

/* at most es_spi_page events; fewer mean that there are no more */
extern const int es_spi_page;
extern Tuplestorestate *es_spi_all(EsStore *store, int64 after, int64 upto, Snapshot snapshot);

#endif							/* EVENTSRC_SPISCAN_H */
