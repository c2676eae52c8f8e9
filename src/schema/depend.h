/*
 * depend.h
 *		What a function's answers depend on, as far as the catalogs tell.
 */
#ifndef EVENTSRC_DEPEND_H
#define EVENTSRC_DEPEND_H

#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"

extern void es_describe_function(StringInfo to, Oid function, List **tables);

#endif							/* EVENTSRC_DEPEND_H */
