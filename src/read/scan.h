/*
 * scan.h
 *		Scans over a store's events, in stream order or in global order.
 *
 * Both go to the partitions' indexes directly, except where row security
 * applies to the current user (or the tables were given more columns): then
 * the executor reads, and the policies hold.  The slots that a scan returns
 * have the columns of es_event, in its order, and are valid until the next
 * call.  A scan must be ended in the transaction (and subtransaction) that
 * began it; after an error the resource owner cleans up.
 */
#ifndef EVENTSRC_SCAN_H
#define EVENTSRC_SCAN_H

#include "store/store.h"

#include "access/skey.h"
#include "executor/tuptable.h"
#include "utils/snapshot.h"

typedef struct EsScan EsScan;

/*
 * es_scan_stream reads one stream's versions from..to (both inclusive), up or
 * down, as the snapshot sees them.
 */
extern EsScan *es_scan_stream(EsStore *store, text *aggregate_type, text *aggregate_id,
							  int64 from_version, int64 to_version, bool backward,
							  Snapshot snapshot);

/*
 * es_scan_all reads events with after < global_position <= upto, ascending.
 * The caller computes upto (es_position_safe()) and only then takes the
 * snapshot.  If horizon is not NULL the scan ends before the first event that
 * horizon does not see.
 */
extern EsScan *es_scan_all(EsStore *store, int64 after, int64 upto,
						   Snapshot snapshot, Snapshot horizon);

/* the same without row security, for our own needs */
extern EsScan *es_scan_all_direct(EsStore *store, int64 after, int64 upto,
								  Snapshot snapshot, Snapshot horizon);

/* a stream's events in one partition (an index into the store's), from the last down */
extern EsScan *es_scan_stream_in(EsStore *store, int partition, text *aggregate_type,
								 text *aggregate_id, int64 from_version, Snapshot snapshot);

/* the partitions (indexes into the store's) that hold a stream's events */
extern bool es_stream_extent(EsStore *store, text *aggregate_type, text *aggregate_id,
							 Snapshot snapshot, int *first, int *last, ItemPointer row, bool *lost);

/* has a condition on a column of an index compare as the index does */
extern void es_compare_as(ScanKey key, Relation index);

/* whether another snapshot sees the row that was returned last (stream order) */
extern bool es_scan_visible(EsScan *scan, TupleTableSlot *slot, Snapshot snapshot);

/* from now on the scan returns events as the store's upcasters make them */
extern void es_scan_upcast(EsScan *scan);

extern TupleTableSlot *es_scan_next(EsScan *scan);	/* NULL at the end */
extern void es_scan_end(EsScan *scan);

/* the slot's row as a datum of the composite type es_event, detoasted, in CurrentMemoryContext */
extern Datum es_event_datum(TupleTableSlot *slot);

#endif							/* EVENTSRC_SCAN_H */
