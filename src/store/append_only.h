/*
 * append_only.h
 *		The parts of the append_only table access method.
 *
 * append_only.c holds the routine: heap's, with everything that would change
 * or remove a row replaced by an error.  append_only_index.c holds the two
 * scans that build indexes, because heap's own accept no other routine.
 */
#ifndef EVENTSRC_APPEND_ONLY_H
#define EVENTSRC_APPEND_ONLY_H

#include "postgres.h"

#include "access/tableam.h"
#include "catalog/index.h"
#include "nodes/execnodes.h"

/* callbacks of the routine (append_only_index.c) */
extern double es_append_only_build_scan(Relation table, Relation index,
										IndexInfo *index_info,
										bool allow_sync, bool anyvisible,
										bool progress,
										BlockNumber start_block,
										BlockNumber block_count,
										IndexBuildCallback callback,
										void *callback_state,
										TableScanDesc scan);
extern void es_append_only_validate_scan(Relation table, Relation index,
										 IndexInfo *index_info,
										 Snapshot snapshot,
										 ValidateIndexState *state);

#endif							/* EVENTSRC_APPEND_ONLY_H */
