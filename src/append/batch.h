/*
 * batch.h
 *		What es_append_batch() was given.
 */
#ifndef EVENTSRC_BATCH_H
#define EVENTSRC_BATCH_H

#include "append/append.h"

#include "utils/jsonb.h"

/* an entry of the batch */
typedef struct EsBatchEntry
{
	EsAppend	append;
	EsStreamHead head;
	uint64		hash;
	bool		retry;
} EsBatchEntry;

/* what is being read, checked or written, from 1; for errors */
typedef struct EsBatchPlace
{
	int			entry;			/* 0: none yet */
	int			event;			/* 0: the entry itself */
} EsBatchPlace;

extern const char *es_batch_place(const EsBatchPlace *place);
extern EsBatchEntry *es_batch_read(Jsonb *batch, int *count, EsBatchPlace *place);

#endif							/* EVENTSRC_BATCH_H */
