/*
 * rows.h
 *		The rows that a scan of a partition's index finds, read page by page.
 */
#ifndef EVENTSRC_ROWS_H
#define EVENTSRC_ROWS_H

#include "access/relscan.h"
#include "executor/tuptable.h"
#include "utils/relcache.h"

typedef struct EsRows EsRows;

extern EsRows *es_rows_begin(Relation rel, IndexScanDesc scan, TupleTableSlot *slot);
extern bool es_rows_next(EsRows *rows, ScanDirection direction);
extern void es_rows_end(EsRows *rows);

/* makes an event's columns up to data ready in its slot */
extern void es_rows_deform(TupleTableSlot *slot);

#endif							/* EVENTSRC_ROWS_H */
